#include "base/opt.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/num.h"

#include <stdlib.h>
#include <string.h>

#define NEAR 2 /* edits between what was typed and what may have been meant */

/* Levenshtein distance, both words cut to 31 bytes. */
static unsigned distance(const char *a, const char *b)
{
    unsigned row[32];
    size_t n = strnlen(a, 31), m = strnlen(b, 31);
    for (size_t j = 0; j <= m; j++)
        row[j] = (unsigned)j;
    for (size_t i = 1; i <= n; i++) {
        unsigned corner = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= m; j++) {
            unsigned above = row[j];
            unsigned best = corner + (a[i - 1] != b[j - 1]);
            best = above + 1 < best ? above + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            row[j] = best;
            corner = above;
        }
    }
    return row[m];
}

const char *opt_nearest_command(const struct opt_program *p, const char *word)
{
    const char *best = NULL;
    unsigned least = NEAR + 1;
    for (const struct opt_command *const *c = p->commands; *c; c++) {
        unsigned d = distance(word, (*c)->name);
        if (d < least) {
            least = d;
            best = (*c)->name;
        }
    }
    return best;
}

static const struct opt *find_long(const struct opt_command *c, const char *name, size_t len)
{
    for (const struct opt *o = c->opts; o->name; o++)
        if (strlen(o->name) == len && memcmp(o->name, name, len) == 0)
            return o;
    return NULL;
}

static const struct opt *find_letter(const struct opt_command *c, char letter)
{
    for (const struct opt *o = c->opts; o->name; o++)
        if (o->letter == letter)
            return o;
    return NULL;
}

static enum rc unknown(const struct opt_command *c, const char *word, struct err *err)
{
    const char *best = NULL;
    unsigned least = NEAR + 1;
    char bare[64] = "";
    const char *name = word + strspn(word, "-");
    memcpy(bare, name, strcspn(name, "=") < sizeof(bare) ? strcspn(name, "=") : sizeof(bare) - 1);
    for (const struct opt *o = c->opts; o->name; o++) {
        unsigned d = distance(bare, o->name);
        if (d < least) {
            least = d;
            best = o->name;
        }
    }
    if (best)
        return err_set(err, RC_INVALID, "unknown option '%.64s'; did you mean --%s?", word, best);
    return err_set(err, RC_INVALID, "unknown option '%.64s'; see `chrek %s --help`", word, c->name);
}

static enum rc set_value(const struct opt *o, void *values, const char *text, struct err *err)
{
    void *at = (char *)values + o->offset;
    switch (o->kind) {
    case OPT_FLAG:
        return num_parse_bool(text, at, err);
    case OPT_STRING:
        *(const char **)at = text;
        return RC_OK;
    case OPT_U64:
        return num_parse_u64(text, 0, UINT64_MAX, at, err);
    case OPT_SIZE:
        return num_parse_size(text, at, err);
    case OPT_DURATION:
        return num_parse_duration(text, at, err);
    case OPT_LIST:
        break;
    }
    struct opt_list *list = at;
    if (list->n == OPT_LIST_MAX)
        return err_set(err, RC_INVALID, "given more than %d times", OPT_LIST_MAX);
    list->item[list->n++] = text;
    return RC_OK;
}

struct parse {
    const struct opt_command *c;
    void *values;
    bool *seen; /* by option: an argument gave its value */
    int argc, i;
    char **argv;
    struct err *err;
};

static enum rc set_named(struct parse *p, const struct opt *o, const char *text)
{
    p->seen[o - p->c->opts] = true;
    enum rc rc = set_value(o, p->values, text, p->err);
    return rc ? err_ctx(p->err, rc, "--%s", o->name) : RC_OK;
}

/* What no argument gave. */
static enum rc from_environment(struct parse *p)
{
    for (const struct opt *o = p->c->opts; o->name; o++) {
        const char *text = o->env && !p->seen[o - p->c->opts] ? getenv(o->env) : NULL;
        enum rc rc = text && *text ? set_value(o, p->values, text, p->err) : RC_OK;
        if (rc)
            return err_ctx(p->err, rc, "environment variable %s", o->env);
    }
    return RC_OK;
}

/* One long option at argv[i]; i ends at its last word. */
static enum rc parse_long(struct parse *p)
{
    const char *name = p->argv[p->i] + 2;
    size_t len = strcspn(name, "=");
    const struct opt *o = find_long(p->c, name, len);
    if (!o && strncmp(name, "no-", 3) == 0 && name[len] == '\0') {
        o = find_long(p->c, name + 3, len - 3);
        if (o && o->kind == OPT_FLAG)
            return set_named(p, o, "0");
        o = NULL;
    }
    if (!o)
        return unknown(p->c, p->argv[p->i], p->err);
    if (o->kind == OPT_FLAG) {
        if (name[len])
            return err_set(p->err, RC_INVALID, "--%s takes no value", o->name);
        return set_named(p, o, "1");
    }
    if (name[len])
        return set_named(p, o, name + len + 1);
    if (p->i + 1 >= p->argc)
        return err_set(p->err, RC_INVALID, "--%s needs a value (%s)", o->name, o->arg);
    return set_named(p, o, p->argv[++p->i]);
}

static enum rc parse_short(struct parse *p)
{
    const char *word = p->argv[p->i];
    const struct opt *o = find_letter(p->c, word[1]);
    if (!o)
        return unknown(p->c, word, p->err);
    if (o->kind == OPT_FLAG)
        return word[2] ? unknown(p->c, word, p->err) : set_named(p, o, "1");
    if (word[2])
        return set_named(p, o, word + 2);
    if (p->i + 1 >= p->argc)
        return err_set(p->err, RC_INVALID, "-%c needs a value (%s)", o->letter, o->arg);
    return set_named(p, o, p->argv[++p->i]);
}

/* Whether the next word is the value of this option. */
static bool takes_next(const struct opt_command *c, const char *word)
{
    bool is_long = word[1] == '-';
    size_t len = strcspn(word + 2, "=");
    const struct opt *o = is_long ? find_long(c, word + 2, len) : find_letter(c, word[1]);
    return o && o->kind != OPT_FLAG && (is_long ? word[2 + len] == '\0' : word[2] == '\0');
}

bool opt_asks_for_help(const struct opt_command *c, int argc, char **argv)
{
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
        bool operand = argv[i][0] != '-' || argv[i][1] == '\0';
        if (operand && c->stop_at_operand)
            return false;
        if (!operand && takes_next(c, argv[i]))
            i++;
    }
    return false;
}

static enum rc check_count(const struct opt_command *c, int n, struct err *err)
{
    if (n < c->min_operands)
        return err_set(err, RC_INVALID, "%s: missing argument; usage: chrek %s %s", c->name,
                       c->name, c->synopsis);
    if (c->max_operands >= 0 && n > c->max_operands)
        return err_set(err, RC_INVALID, "%s: too many arguments; usage: chrek %s%s%s", c->name,
                       c->name, *c->synopsis ? " " : "", c->synopsis);
    return RC_OK;
}

/* All arguments; what is no option goes to `kept`. */
static enum rc parse_words(struct parse *p, char **kept, int *out_operands)
{
    enum rc rc = RC_OK;
    int operands = 0;
    for (; !rc && p->i < p->argc; p->i++) {
        const char *word = p->argv[p->i];
        if (strcmp(word, "--") == 0) {
            p->i++;
            break;
        }
        if (word[0] != '-' || word[1] == '\0') {
            if (p->c->stop_at_operand)
                break;
            kept[operands++] = p->argv[p->i];
        } else if (word[1] == '-') {
            rc = parse_long(p);
        } else {
            rc = parse_short(p);
        }
    }
    while (!rc && p->i < p->argc)
        kept[operands++] = p->argv[p->i++];
    *out_operands = operands;
    return rc;
}

enum rc opt_parse(const struct opt_command *c, void *values, int argc, char **argv, int *out_first,
                  struct err *err)
{
    size_t n = 1;
    for (const struct opt *o = c->opts; o->name; o++)
        n++;
    CLEANUP(mem_freep) bool *seen = mem_zalloc(n * sizeof(*seen));
    CLEANUP(mem_freep) char **kept = mem_zalloc(((size_t)argc + 1) * sizeof(*kept));
    struct parse p = {
        .c = c, .values = values, .seen = seen, .argc = argc, .argv = argv, .err = err};
    int operands = 0;
    enum rc rc = parse_words(&p, kept, &operands);
    if (!rc)
        rc = from_environment(&p);
    if (!rc)
        rc = check_count(c, operands, err);
    if (rc)
        return rc;
    if (operands)
        memcpy(argv + argc - operands, kept, (size_t)operands * sizeof(*kept));
    *out_first = argc - operands;
    return RC_OK;
}
