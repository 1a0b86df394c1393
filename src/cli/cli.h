/* What the commands of `chrek` share: options, opening things, errors, exit codes.
 * Threads: the program's main thread only. */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "base/opt.h"
#include "engine/engine.h"
#include "engine/registry.h"
#include "store/store.h"

#include <stdbool.h>

/* Exit codes are an interface: only ever added to. */
enum cli_exit {
    CLI_OK = 0,
    CLI_FAILED = 1,
    CLI_USAGE = 2,
    CLI_NOT_FOUND = 3,
    CLI_REFUSED = 4,     /* the checkpoint is damaged, unfinished or made for another machine */
    CLI_UNSUPPORTED = 5, /* this machine or process cannot be checkpointed */
    CLI_TIMEOUT = 6,
    CLI_NO_SPACE = 7,
    CLI_DENIED = 8,
    CLI_EXISTS = 9,
    CLI_RUN_UNSAVED = 123, /* run --stop: no checkpoint is there */
    CLI_RUN_LOST = 124, /* run, restore: the memory of a restored program could not be brought in */
    CLI_RUN_FAILED = 125, /* run, restore: chrek itself failed */
    CLI_RUN_DENIED = 126, /* run: the command cannot be executed */
    CLI_RUN_ABSENT = 127, /* run: there is no such command */
};

int cli_exit_of(enum rc rc);

/* The command that runs, for hints; kept. */
void cli_set_command(const char *name);

/* Print "chrek: error: ..." and, where something can be done about it, "chrek: hint: ..."; returns
 * the exit code. */
int cli_fail(const struct err *err);
/* The same for one failure of several: a hint that is last_hint is not given again.
 * last_hint  set to the hint that was given */
int cli_fail_again(const struct err *err, struct buf *last_hint);
/* "chrek: ..." on standard error. */
void cli_note(const char *text);
/* Where cli_note() writes from now on; borrowed. */
void cli_note_to(int fd);

#define CLI_STORE_OPTION(type, field)                                                              \
    {                                                                                              \
        .name = "store", .letter = 's', .kind = OPT_STRING, .arg = "URL",                          \
        .offset = offsetof(type, field), .env = "CHREK_STORE",                                     \
        .help = "Where checkpoints are: a directory (a path or file://PATH), or object storage: "  \
                "s3://BUCKET/PREFIX, az://CONTAINER/PREFIX, oci://REGISTRY/NAME, or "              \
                "object:///PATH, a directory that "                                                \
                "is used like it, without locks and renames. "                                     \
                "Default: what `chrek configure` has set, else /var/lib/chrek/checkpoints."        \
    }
#define CLI_STORAGE_OPTION(type, field)                                                            \
    {                                                                                              \
        .name = "storage", .kind = OPT_STRING, .arg = "URL", .offset = offsetof(type, field),      \
        .help = "The same as --store."                                                             \
    }
/* What --format and --compression say; NULL = not given.  errors RC_INVALID */
enum rc cli_format(const char *format, const char *compression, bool *out_plain,
                   enum compress_codec *out_codec, struct err *err);

#define CLI_FORMAT_OPTIONS(type, format_field, compression_field)                                  \
    {.name = "format",                                                                             \
     .kind = OPT_STRING,                                                                           \
     .arg = "packed|plain",                                                                        \
     .offset = offsetof(type, format_field),                                                       \
     .help = "How memory is stored: packed (compressed, each page once), or plain (page images "   \
             "that any CRIU can read). Default: packed."},                                         \
    {                                                                                              \
        .name = "compression", .kind = OPT_STRING, .arg = "lz4|zstd|raw",                          \
        .offset = offsetof(type, compression_field),                                               \
        .help = "Of packed memory: lz4 (fast), zstd (smaller) or raw. Default: lz4."               \
    }
#define CLI_JSON_OPTION(type, field)                                                               \
    {                                                                                              \
        .name = "json", .kind = OPT_FLAG, .offset = offsetof(type, field),                         \
        .help = "Write JSON for machines instead of a table for people."                           \
    }
#define CLI_CRIU_OPTION(type, field)                                                               \
    {                                                                                              \
        .name = "criu", .kind = OPT_STRING, .arg = "PATH", .offset = offsetof(type, field),        \
        .env = "CHREK_CRIU",                                                                       \
        .help = "The criu program to use, 4.2 or newer. Default: the one "                         \
                "that was installed with chrek."                                                   \
    }

#define CLI_GHOST_LIMIT_OPTION(type, field)                                                        \
    {                                                                                              \
        .name = "ghost-limit", .kind = OPT_SIZE, .arg = "SIZE", .offset = offsetof(type, field),   \
        .help = "Largest deleted but still open file to keep, below 4G. Default: 512M."            \
    }
#define CLI_KEEP_LIMIT_OPTION(type, field)                                                         \
    {                                                                                              \
        .name = "keep-limit", .kind = OPT_SIZE, .arg = "SIZE", .offset = offsetof(type, field),    \
        .help = "A program with at most so much memory goes on before it is copied; what it "      \
                "writes meanwhile takes memory once more. One with more stands still until it "    \
                "is. Default: as much as is free; 0: it always stands still."                      \
    }
/* errors RC_INVALID: CRIU cannot be told so much */
enum rc cli_ghost_limit(uint64_t asked, uint32_t *out, struct err *err);

/* For commands that restore: a cache in front of object storage. */
struct cli_cache {
    const char *dir;
    uint64_t bytes;
};
#define CLI_CACHE_OPTIONS(type, field)                                                             \
    {.name = "cache",                                                                              \
     .kind = OPT_STRING,                                                                           \
     .arg = "DIR",                                                                                 \
     .offset = offsetof(type, field) + offsetof(struct cli_cache, dir),                            \
     .env = "CHREK_CACHE",                                                                         \
     .help = "A directory to keep what is read of object storage in, for all restores of this "    \
             "machine. Default: what `chrek configure` has set, else none."},                      \
    {                                                                                              \
        .name = "cache-size", .kind = OPT_SIZE, .arg = "SIZE",                                     \
        .offset = offsetof(type, field) + offsetof(struct cli_cache, bytes),                       \
        .env = "CHREK_CACHE_SIZE",                                                                 \
        .help = "How much it may hold; what was not used for longest makes room. Default: what "   \
                "`chrek configure` has set, else 10G."                                             \
    }

/* Open the store that was asked for, else the configured one; it is made where it is not there. */
enum rc cli_open_store(const char *asked, struct store **out, struct err *err);
/* The same for who only reads: a mistyped store is no empty one.
 * errors  RC_NOT_FOUND also where the directory is not there, unless it is the default one, which
 *         perhaps nobody has used yet */
enum rc cli_open_existing(const char *asked, struct store **out, struct err *err);
/* Only that look. */
enum rc cli_check_store(const char *asked, struct err *err);
/* The same with the cache that was asked for, else the configured one; no cache is none.
 * out_cached  whether there is one; may be NULL */
enum rc cli_open_cached(const char *asked, const struct cli_cache *cache, struct store **out,
                        bool *out_cached, struct err *err);

/* An engine that reports progress and warnings on standard error.
 * out_criu  keeps the path alive; the caller's (free) */
enum rc cli_engine(const char *asked_criu, bool quiet, struct engine *out, char **out_criu,
                   struct err *err);
/* Take the progress line away. */
void cli_engine_end(const struct engine *e);

/* Find a process by PID, or a box by its name or by the PID of its supervisor or init.
 * out_box  its name is NULL when it is no box; the caller's, registry_box_done()
 * out_pid  the process, a box's main process
 * errors   RC_NOT_FOUND, RC_DENIED */
enum rc cli_find_process(const char *what, struct registry_box *out_box, pid_t *out_pid,
                         struct err *err);

/* "key=value" options as labels.  out: the caller's (mem_freep); the strings are borrowed, each
 * key cut at its `=` in place of a copy owned by out. */
enum rc cli_labels(const struct opt_list *list, struct metadata_label **out, struct err *err);
void cli_labels_free(struct metadata_label *labels, size_t n);

/* Write a text to standard output; the exit code says whether that worked. */
int cli_print(const struct buf *text);

extern const struct opt_command cmd_run, cmd_checkpoint, cmd_restore, cmd_ls, cmd_inspect, cmd_diff,
    cmd_delete, cmd_gc, cmd_verify, cmd_key, cmd_doctor, cmd_status, cmd_configure, cmd_version,
    cmd_copy, cmd_export, cmd_import, cmd_prefetch, cmd_bench;
