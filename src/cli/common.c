#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/sys.h"
#include "base/term.h"
#include "cli/advice.h"
#include "cli/cli.h"
#include "cli/config.h"
#include "cli/text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct term_progress progress; /* the process has one standard error */
static const char *command;           /* of chrek, NULL before it is known */
static int notes = STDERR_FILENO;

int cli_exit_of(enum rc rc)
{
    static const int codes[RC_COUNT_] = {
        [RC_OK] = CLI_OK,
        [RC_INVALID] = CLI_USAGE,
        [RC_NOT_FOUND] = CLI_NOT_FOUND,
        [RC_EXISTS] = CLI_EXISTS,
        [RC_CONFLICT] = CLI_FAILED,
        [RC_DENIED] = CLI_DENIED,
        [RC_UNSUPPORTED] = CLI_UNSUPPORTED,
        [RC_CORRUPT] = CLI_REFUSED,
        [RC_TOO_BIG] = CLI_FAILED,
        [RC_NO_SPACE] = CLI_NO_SPACE,
        [RC_UNAVAILABLE] = CLI_FAILED,
        [RC_TIMEOUT] = CLI_TIMEOUT,
        [RC_CANCELLED] = CLI_FAILED,
        [RC_IO] = CLI_FAILED,
    };
    return (unsigned)rc < RC_COUNT_ ? codes[rc] : CLI_FAILED;
}

void cli_note(const char *text)
{
    term_progress_end(&progress);
    /* A terminal that we have put into raw mode needs the carriage return, and no other minds. */
    const char *end = isatty(notes) ? "\r\n" : "\n";
    CLEANUP(buf_done) struct buf line = BUF_INIT;
    buf_adds(&line, "chrek: ");
    text_plain(&line, text); /* it may quote others: a name, a command line */
    buf_adds(&line, end);
    (void)!write(notes, buf_str(&line), line.len);
}

void cli_set_command(const char *name)
{
    command = name;
}

void cli_note_to(int fd)
{
    notes = fd;
}

int cli_fail(const struct err *err)
{
    CLEANUP(buf_done) struct buf none = BUF_INIT;
    return cli_fail_again(err, &none);
}

int cli_fail_again(const struct err *err, struct buf *last_hint)
{
    CLEANUP(buf_done) struct buf problem = BUF_INIT;
    CLEANUP(buf_done) struct buf hint = BUF_INIT;
    buf_adds(&problem, "error: ");
    advice_of(err, command, geteuid() == 0, &problem, &hint);
    cli_note(buf_str(&problem));
    if (hint.len && strcmp(buf_str(&hint), buf_str(last_hint)) != 0) {
        CLEANUP(mem_freep) char *text = mem_asprintf("hint: %s", buf_str(&hint));
        cli_note(text);
        last_hint->len = 0;
        buf_adds(last_hint, buf_str(&hint));
    }
    return cli_exit_of(err->rc);
}

static enum rc open_store(const char *asked, const char *cache, uint64_t cache_bytes,
                          struct store **out, struct err *err)
{
    CLEANUP(mem_freep) char *configured = NULL;
    const char *tmp = getenv("TMPDIR");
    struct store_options o = {.tmp = tmp && *tmp == '/' ? tmp : NULL,
                              .cache = cache,
                              .cache_bytes = cache_bytes,
                              .backend = {.env = getenv}};
    enum rc rc = asked ? RC_OK : config_storage(&configured, err);
    return rc ? rc : store_open_with(asked ? asked : configured, &o, out, err);
}

enum rc cli_open_store(const char *asked, struct store **out, struct err *err)
{
    return open_store(asked, NULL, 0, out, err);
}

enum rc cli_check_store(const char *asked, struct err *err)
{
    CLEANUP(mem_freep) char *configured = NULL;
    enum rc rc = asked ? RC_OK : config_storage(&configured, err);
    if (rc)
        return rc;
    const char *url = asked ? asked : configured, *dir = store_directory(url);
    if (dir && dir != url && *dir != '/')
        return RC_OK;
    if (!dir || strcmp(dir, CONFIG_DEFAULT_STORE) == 0 || access(dir, F_OK) == 0 || errno != ENOENT)
        return RC_OK; /* whatever else is wrong, opening it tells */
    return err_set(err, RC_NOT_FOUND,
                   "there is no store '%.300s'; the first checkpoint that is saved or copied to a "
                   "store makes it",
                   dir);
}

enum rc cli_open_existing(const char *asked, struct store **out, struct err *err)
{
    enum rc rc = cli_check_store(asked, err);
    return rc ? rc : cli_open_store(asked, out, err);
}

enum rc cli_open_cached(const char *asked, const struct cli_cache *cache, struct store **out,
                        bool *out_cached, struct err *err)
{
    CLEANUP(mem_freep) char *configured = NULL;
    uint64_t bytes = 0;
    enum rc rc = config_cache(&configured, &bytes, err);
    const char *dir = cache->dir ? cache->dir : configured;
    if (!rc)
        rc = open_store(asked, dir, cache->bytes ? cache->bytes : bytes, out, err);
    if (!rc && out_cached)
        *out_cached = dir && store_is_remote(*out);
    return rc;
}

static void on_progress(void *arg, const char *what, uint64_t done, uint64_t total)
{
    (void)arg;
    term_progress(&progress, what, done, total);
}

static void on_warning(void *arg, const char *text)
{
    (void)arg;
    cli_note(text);
}

enum rc cli_engine(const char *asked_criu, bool quiet, struct engine *out, char **out_criu,
                   struct err *err)
{
    char *criu = mem_strdup(asked_criu);
    enum rc rc = criu ? RC_OK : engine_find_criu(&criu, err);
    if (rc)
        return rc;
    term_progress_init(&progress, !quiet);
    *out = (struct engine){.criu = criu, .progress = on_progress, .warn = on_warning};
    *out_criu = criu;
    return RC_OK;
}

void cli_engine_end(const struct engine *e)
{
    (void)e;
    term_progress_end(&progress);
}

/* The box that this PID stands for, if any. */
static enum rc box_of_pid(pid_t pid, struct registry_box *out, struct err *err)
{
    struct registry_box *boxes = NULL;
    size_t n = 0;
    enum rc rc = registry_list(&boxes, &n, err);
    for (size_t i = 0; !rc && i < n; i++) {
        if (!out->name && (boxes[i].owner == pid || boxes[i].init == pid))
            *out = boxes[i];
        else
            registry_box_done(&boxes[i]);
    }
    free(boxes);
    return rc;
}

enum rc cli_find_process(const char *what, struct registry_box *out_box, pid_t *out_pid,
                         struct err *err)
{
    uint64_t pid = 0;
    CLEANUP(registry_box_done) struct registry_box box = {.name = NULL};
    bool is_number = num_parse_u64(what, 1, 1 << 22, &pid, NULL) == RC_OK;
    enum rc rc = is_number ? box_of_pid((pid_t)pid, &box, err) : registry_find(what, &box, err);
    pid_t found = (pid_t)pid;
    if (!rc && box.name)
        rc = registry_host_pid(box.init, box.pid, &found, err);
    if (rc)
        return rc;
    *out_pid = found;
    *out_box = box;
    box = (struct registry_box){.name = NULL};
    return RC_OK;
}

enum rc cli_labels(const struct opt_list *list, struct metadata_label **out, struct err *err)
{
    struct metadata_label *labels = mem_zalloc((list->n + 1) * sizeof(*labels));
    for (size_t i = 0; i < list->n; i++) {
        const char *eq = strchr(list->item[i], '=');
        if (!eq || eq == list->item[i]) {
            cli_labels_free(labels, i);
            return err_set(err, RC_INVALID, "--label '%.64s': want KEY=VALUE", list->item[i]);
        }
        labels[i].key = mem_asprintf("%.*s", (int)(eq - list->item[i]), list->item[i]);
        labels[i].value = mem_strdup(eq + 1);
    }
    *out = labels;
    return RC_OK;
}

void cli_labels_free(struct metadata_label *labels, size_t n)
{
    for (size_t i = 0; labels && i < n; i++) {
        free(labels[i].key);
        free(labels[i].value);
    }
    free(labels);
}

int cli_print(const struct buf *text)
{
    struct err err = ERR_INIT;
    enum rc rc = sys_write_all(STDOUT_FILENO, buf_str(text), text->len, &err);
    return rc ? cli_fail(&err) : CLI_OK;
}

enum rc cli_ghost_limit(uint64_t asked, uint32_t *out, struct err *err)
{
    if (asked > UINT32_MAX)
        return err_set(err, RC_INVALID,
                       "--ghost-limit: CRIU keeps no deleted file of 4G or more; let the program "
                       "close it, or make it smaller, before its checkpoint");
    *out = (uint32_t)asked;
    return RC_OK;
}

enum rc cli_format(const char *format, const char *compression, bool *out_plain,
                   enum compress_codec *out_codec, struct err *err)
{
    if (format && strcmp(format, "plain") != 0 && strcmp(format, "packed") != 0)
        return err_set(err, RC_INVALID, "--format is 'plain' or 'packed', not '%.32s'", format);
    *out_plain = format && strcmp(format, "plain") == 0;
    *out_codec = COMPRESS_LZ4;
    return compression ? compress_parse(compression, out_codec, err) : RC_OK;
}
