/* Any words are parsed or refused; what is parsed is parsed the same when it is written
 * canonically: options as --name=value first, then `--` and the operands. */
#include "base/compiler.h"
#include "base/opt.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORDS 64

struct values {
    bool flag;
    const char *text;
    uint64_t count, size, pause;
    struct opt_list list;
};

static const struct opt table[] = {
    {.name = "flag", .letter = 'f', .kind = OPT_FLAG, .offset = offsetof(struct values, flag)},
    {.name = "text",
     .letter = 't',
     .kind = OPT_STRING,
     .arg = "T",
     .offset = offsetof(struct values, text)},
    {.name = "count",
     .letter = 'c',
     .kind = OPT_U64,
     .arg = "N",
     .offset = offsetof(struct values, count)},
    {.name = "size",
     .letter = 's',
     .kind = OPT_SIZE,
     .arg = "N",
     .offset = offsetof(struct values, size)},
    {.name = "pause",
     .letter = 'p',
     .kind = OPT_DURATION,
     .arg = "N",
     .offset = offsetof(struct values, pause)},
    {.name = "list",
     .letter = 'l',
     .kind = OPT_LIST,
     .arg = "I",
     .offset = offsetof(struct values, list)},
    {.name = NULL},
};

static void must(bool ok)
{
    if (!ok)
        abort();
}

static void check_same(const struct opt_command *c, const struct values *v, char **operands, int n)
{
    char *argv[WORDS + OPT_LIST_MAX + 8];
    int argc = 0, first = 0;
    struct values again = {0};
    CLEANUP(buf_done) struct buf lines = BUF_INIT;
    char flag[] = "--flag", end[] = "--", count[40], size[40], *list[OPT_LIST_MAX];
    (void)snprintf(count, sizeof(count), "--count=%" PRIu64, v->count);
    (void)snprintf(size, sizeof(size), "--size=%" PRIu64, v->size);
    if (v->flag)
        argv[argc++] = flag;
    argv[argc++] = count;
    argv[argc++] = size;
    for (size_t i = 0; i < v->list.n; i++) {
        CLEANUP(buf_done) struct buf item = BUF_INIT;
        buf_addf(&item, "--list=%s", v->list.item[i]);
        argv[argc++] = list[i] = buf_steal(&item);
    }
    argv[argc++] = end;
    for (int i = 0; i < n; i++)
        argv[argc++] = operands[i];
    must(opt_parse(c, &again, argc, argv, &first, NULL) == RC_OK);
    must(again.flag == v->flag && again.count == v->count && again.size == v->size);
    must(again.list.n == v->list.n && argc - first == n);
    for (size_t i = 0; i < v->list.n; i++) {
        must(strcmp(again.list.item[i], v->list.item[i]) == 0);
        free(list[i]);
    }
    for (int i = 0; i < n; i++)
        must(strcmp(argv[first + i], operands[i]) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct opt_command c = {.name = "c", .synopsis = "", .opts = table, .max_operands = -1};
    char *copy = malloc(len + 1), *argv[WORDS];
    int argc = 0, first = 0;
    struct values v = {0};
    struct err err = ERR_INIT;
    must(copy != NULL);
    if (len)
        memcpy(copy, data, len);
    copy[len] = '\0';
    for (char *p = copy; p < copy + len && argc < WORDS; p += strlen(p) + 1)
        argv[argc++] = p;
    c.stop_at_operand = len & 1;
    if (opt_parse(&c, &v, argc, argv, &first, &err) == RC_OK)
        check_same(&c, &v, argv + first, argc - first);
    else
        must(err.rc == RC_INVALID && err.msg[0]);
    free(copy);
    return 0;
}
