#include "gpu/message.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/num.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PID_LIMIT 4194304 /* of Linux */

static const char *const verbs[GPU_VERB_COUNT_] = {
    [GPU_HELLO] = "hello",           [GPU_FIND] = "find",       [GPU_LOCK] = "lock",
    [GPU_CHECKPOINT] = "checkpoint", [GPU_RESTORE] = "restore", [GPU_UNLOCK] = "unlock",
    [GPU_RELEASE] = "release",
};

static const char *const states[GPU_STATE_COUNT_] = {
    [GPU_RUNNING] = "running", [GPU_LOCKED] = "locked",   [GPU_CHECKPOINTED] = "checkpointed",
    [GPU_FAILED] = "failed",   [GPU_UNKNOWN] = "unknown",
};

const char *gpu_verb_name(enum gpu_verb verb)
{
    return verbs[verb];
}

const char *gpu_state_name(enum gpu_state state)
{
    return states[state];
}

static bool find_word(const char *const *list, size_t n, const char *word, size_t *out)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i], word) == 0) {
            *out = i;
            return true;
        }
    return false;
}

/* Text of others goes into one line. */
static void add_line_text(struct buf *out, const char *text)
{
    for (; *text; text++) {
        bool plain = (unsigned char)*text >= ' ' && *text != 127;
        buf_add(out, plain ? text : " ", 1);
    }
    buf_adds(out, "\n");
}

/* A copy that ends in NUL; a NUL within is an error. */
static char *copy_text(const char *text, size_t len)
{
    if (len > GPU_MESSAGE_MAX || memchr(text, '\0', len))
        return NULL;
    char *copy = mem_alloc(len + 1);
    memcpy(copy, text, len);
    copy[len] = '\0';
    return copy;
}

/* ---- requests ---- */

void gpu_request_format(const struct gpu_request *r, struct buf *out)
{
    buf_adds(out, verbs[r->verb]);
    if (r->timeout_ms)
        buf_addf(out, " timeout=%u", r->timeout_ms);
    for (size_t i = 0; i < r->map.n; i++)
        buf_addf(out, "%s%s=%s", i ? "," : " map=", r->map.pair[i].from, r->map.pair[i].to);
    for (size_t i = 0; i < r->n_pids; i++)
        buf_addf(out, "%s%d", i ? "," : " pids=", (int)r->pid[i]);
}

static enum rc parse_pids(char *text, struct gpu_request *r, struct err *err)
{
    char *save = NULL;
    for (char *word = strtok_r(text, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
        uint64_t pid = 0;
        if (r->n_pids == GPU_PIDS_MAX)
            return err_set(err, RC_INVALID, "more than %d processes", GPU_PIDS_MAX);
        enum rc rc = num_parse_u64(word, 1, PID_LIMIT, &pid, err);
        if (rc)
            return err_ctx(err, rc, "process");
        r->pid[r->n_pids++] = (pid_t)pid;
    }
    return RC_OK;
}

static enum rc parse_option(char *word, struct gpu_request *r, struct err *err)
{
    uint64_t n = 0;
    if (strncmp(word, "pids=", 5) == 0)
        return parse_pids(word + 5, r, err);
    if (strncmp(word, "map=", 4) == 0)
        return gpu_map_parse(word + 4, &r->map, err);
    if (strncmp(word, "timeout=", 8) != 0)
        return err_set(err, RC_INVALID, "unknown option '%.40s'", word);
    enum rc rc = num_parse_u64(word + 8, 0, UINT32_MAX, &n, err);
    if (!rc)
        r->timeout_ms = (uint32_t)n;
    return rc;
}

enum rc gpu_request_parse(const char *text, size_t len, struct gpu_request *out, struct err *err)
{
    CLEANUP(mem_freep) char *copy = copy_text(text, len);
    CLEANUP(mem_freep) struct gpu_request *r = mem_zalloc(sizeof(*r));
    char *save = NULL;
    size_t verb = 0;
    char *word = copy ? strtok_r(copy, " \n", &save) : NULL;
    if (!word || !find_word(verbs, ARRAY_LEN(verbs), word, &verb))
        return err_set(err, RC_INVALID, "unknown request '%.40s'", word ? word : "");
    r->verb = (enum gpu_verb)verb;
    enum rc rc = RC_OK;
    while (!rc && (word = strtok_r(NULL, " \n", &save)))
        rc = parse_option(word, r, err);
    if (!rc)
        *out = *r;
    return rc;
}

/* ---- answers ---- */

static void format_facts(const struct gpu_facts *f, struct buf *out)
{
    buf_addf(out, "driver %s %u %d %d\n", f->driver[0] ? f->driver : "-", f->cuda,
             f->can_checkpoint, f->can_map);
    for (size_t i = 0; i < f->n_devices; i++) {
        const struct gpu_device *d = &f->device[i];
        buf_addf(out, "device %s %" PRIu64 " %u %d ", d->uuid, d->memory_bytes, d->minor, d->mig);
        add_line_text(out, d->name);
    }
}

void gpu_reply_format(const struct gpu_reply *r, struct buf *out)
{
    if (r->rc) {
        buf_addf(out, "error %d ", (int)r->rc);
        add_line_text(out, r->why);
    } else {
        buf_adds(out, "ok\n");
    }
    if (r->has_facts)
        format_facts(&r->facts, out);
    for (size_t i = 0; i < r->n; i++) {
        const struct gpu_process *p = &r->process[i];
        buf_addf(out, "process %d %s %d %" PRIu64 "\n", (int)p->pid, states[p->state],
                 (int)p->thread, p->ns);
        if (!p->code)
            continue;
        buf_addf(out, "failed %d %d ", (int)p->pid, p->code);
        add_line_text(out, p->why);
    }
}

/* The next word of a line, NULL at its end. */
static char *next(char **line)
{
    return strtok_r(NULL, " ", line);
}

static bool number(char **line, uint64_t max, uint64_t *out)
{
    const char *word = next(line);
    return word && num_parse_u64(word, 0, max, out, NULL) == RC_OK;
}

static bool parse_driver(char *rest, struct gpu_facts *f)
{
    uint64_t cuda = 0, can_checkpoint = 0, can_map = 0;
    const char *version = next(&rest);
    if (!version || strlen(version) >= sizeof(f->driver) || !number(&rest, UINT32_MAX, &cuda) ||
        !number(&rest, 1, &can_checkpoint) || !number(&rest, 1, &can_map))
        return false;
    (void)snprintf(f->driver, sizeof(f->driver), "%s", strcmp(version, "-") == 0 ? "" : version);
    f->cuda = (uint32_t)cuda;
    f->can_checkpoint = can_checkpoint;
    f->can_map = can_map;
    return true;
}

static bool parse_device(char *rest, struct gpu_facts *f)
{
    uint64_t memory = 0, minor = 0, mig = 0;
    const char *uuid = next(&rest);
    if (f->n_devices == GPU_DEVICES_MAX || !uuid || !gpu_uuid_valid(uuid) ||
        !number(&rest, UINT64_MAX, &memory) || !number(&rest, UINT32_MAX, &minor) ||
        !number(&rest, 1, &mig))
        return false;
    struct gpu_device *d = &f->device[f->n_devices++];
    memcpy(d->uuid, uuid, sizeof(d->uuid));
    d->memory_bytes = memory;
    d->minor = (uint32_t)minor;
    d->mig = mig;
    (void)snprintf(d->name, sizeof(d->name), "%s", rest);
    return true;
}

static bool parse_process(char *rest, struct gpu_reply *r)
{
    uint64_t pid = 0, thread = 0, ns = 0;
    size_t state = 0;
    if (r->n == GPU_PIDS_MAX || !number(&rest, PID_LIMIT, &pid) || !pid)
        return false;
    const char *word = next(&rest);
    if (!word || !find_word(states, ARRAY_LEN(states), word, &state) ||
        !number(&rest, PID_LIMIT, &thread) || !number(&rest, UINT64_MAX, &ns))
        return false;
    r->process[r->n++] = (struct gpu_process){
        .pid = (pid_t)pid, .state = (enum gpu_state)state, .thread = (pid_t)thread, .ns = ns};
    return true;
}

/* Belongs to the process before it. */
static bool parse_failed(char *rest, struct gpu_reply *r)
{
    uint64_t pid = 0, code = 0;
    if (!r->n || !number(&rest, PID_LIMIT, &pid) || !number(&rest, 1 << 20, &code) || !code)
        return false;
    struct gpu_process *p = &r->process[r->n - 1];
    if ((uint64_t)p->pid != pid)
        return false;
    p->code = (int)code;
    (void)snprintf(p->why, sizeof(p->why), "%s", rest);
    return true;
}

static bool parse_head(char *line, struct gpu_reply *r)
{
    char *rest = NULL;
    uint64_t rc = 0;
    if (strcmp(line, "ok") == 0)
        return true;
    const char *word = strtok_r(line, " ", &rest);
    if (!word || strcmp(word, "error") != 0 || !number(&rest, RC_COUNT_ - 1, &rc) || !rc)
        return false;
    r->rc = (enum rc)rc;
    (void)snprintf(r->why, sizeof(r->why), "%s", rest);
    return true;
}

static bool parse_line(char *line, struct gpu_reply *r)
{
    char *rest = NULL;
    const char *word = strtok_r(line, " ", &rest);
    if (!word)
        return false;
    if (strcmp(word, "driver") == 0) {
        r->has_facts = true;
        return parse_driver(rest, &r->facts);
    }
    if (strcmp(word, "device") == 0)
        return parse_device(rest, &r->facts);
    if (strcmp(word, "process") == 0)
        return parse_process(rest, r);
    return strcmp(word, "failed") == 0 && parse_failed(rest, r);
}

enum rc gpu_reply_parse(const char *text, size_t len, struct gpu_reply *out, struct err *err)
{
    CLEANUP(mem_freep) char *copy = copy_text(text, len);
    CLEANUP(mem_freep) struct gpu_reply *r = mem_zalloc(sizeof(*r));
    char *save = NULL;
    char *line = copy ? strtok_r(copy, "\n", &save) : NULL;
    if (!line || !parse_head(line, r))
        return err_set(err, RC_CORRUPT, "an answer of chrek-gpu makes no sense");
    for (int i = 2; (line = strtok_r(NULL, "\n", &save)); i++)
        if (!parse_line(line, r))
            return err_set(err, RC_CORRUPT, "an answer of chrek-gpu: line %d makes no sense", i);
    *out = *r;
    return RC_OK;
}
