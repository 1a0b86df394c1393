#include "base/opt.h"
#include "harness/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct values {
    bool flag, on;
    const char *text;
    uint64_t size, time, number;
    struct opt_list list;
};

static const struct opt options[] = {{.name = "flag",
                                      .letter = 'f',
                                      .kind = OPT_FLAG,
                                      .offset = offsetof(struct values, flag),
                                      .help = "A flag."},
                                     {.name = "on",
                                      .kind = OPT_FLAG,
                                      .env = "TEST_OPT_ON",
                                      .offset = offsetof(struct values, on),
                                      .help = "On."},
                                     {.name = "text",
                                      .letter = 't',
                                      .kind = OPT_STRING,
                                      .arg = "TEXT",
                                      .env = "TEST_OPT_TEXT",
                                      .offset = offsetof(struct values, text),
                                      .help = "A text."},
                                     {.name = "size",
                                      .kind = OPT_SIZE,
                                      .arg = "SIZE",
                                      .offset = offsetof(struct values, size),
                                      .help = "A size."},
                                     {.name = "time",
                                      .kind = OPT_DURATION,
                                      .arg = "TIME",
                                      .offset = offsetof(struct values, time),
                                      .help = "A time."},
                                     {.name = "number",
                                      .kind = OPT_U64,
                                      .arg = "N",
                                      .env = "TEST_OPT_NUMBER",
                                      .offset = offsetof(struct values, number),
                                      .help = "A number."},
                                     {.name = "list",
                                      .letter = 'l',
                                      .kind = OPT_LIST,
                                      .arg = "X",
                                      .env = "TEST_OPT_LIST",
                                      .offset = offsetof(struct values, list),
                                      .help = "Many."},
                                     {.name = NULL}};

/* Changed by a test for itself: each runs in a process of its own. */
static struct opt_command command = {.name = "test",
                                     .summary = "test",
                                     .synopsis = "[OPTIONS] A B",
                                     .description = "Tests.",
                                     .opts = options,
                                     .max_operands = -1};

static enum rc parse(struct values *v, const char *line, char **argv, int *argc, int *first,
                     struct err *err)
{
    static char copy[1024];
    (void)strncpy(copy, line, sizeof(copy) - 1);
    char *save = NULL;
    *argc = 0;
    for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save))
        argv[(*argc)++] = w;
    return opt_parse(&command, v, *argc, argv, first, err);
}

TEST(every_form_is_understood)
{
    struct err err = ERR_INIT;
    struct values v = {.on = true};
    char *argv[32];
    int argc, first;
    CHECK_OK(parse(&v, "a -f --text=x=y --no-on --size 2K b -l1 -l 2 --list=3 --time 250ms -- --c",
                   argv, &argc, &first, &err));
    CHECK(v.flag && !v.on && v.size == 2048 && v.time == 250000000 && v.list.n == 3);
    CHECK_STR(v.text, "x=y");
    CHECK_STR(v.list.item[2], "3");
    CHECK(argc - first == 3);
    CHECK_STR(argv[first], "a");
    CHECK_STR(argv[first + 1], "b");
    CHECK_STR(argv[first + 2], "--c");
}

static bool asks(const char *line)
{
    char copy[256], *argv[32], *save = NULL;
    int argc = 0;
    (void)snprintf(copy, sizeof(copy), "%s", line);
    for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save))
        argv[argc++] = w;
    return opt_asks_for_help(&command, argc, argv);
}

TEST(help_is_for_us_only_among_our_options)
{
    CHECK(asks("-h") && asks("--flag --help") && asks("a --help") && asks("-t x --text=y -h"));
    CHECK(!asks("") && !asks("-- --help") && !asks("--text --help") && !asks("-t -h a"));
    command.stop_at_operand = true;
    CHECK(asks("--flag -h psql") && asks("--text x -h psql") && asks("-tx -h psql"));
    CHECK(!asks("psql -h db") && !asks("--flag psql -h db") && !asks("-f psql -h db"));
    CHECK(!asks("--no-on psql -h db") && !asks("--text x psql -h db") && !asks("-l1 psql --help"));
    CHECK(!asks("--text=x psql -h db") && !asks("- -h"));
}

TEST(operands_can_end_the_options)
{
    struct err err = ERR_INIT;
    struct values v = {0};
    char *argv[32];
    int argc, first;
    command.stop_at_operand = true;
    CHECK_OK(parse(&v, "-f run -f --text", argv, &argc, &first, &err));
    CHECK(v.flag && !v.text && argc - first == 3);
    CHECK_STR(argv[first + 1], "-f");
}

TEST(mistakes_are_named)
{
    static const char *const lines[][2] = {{"--txt x", "did you mean --text?"},
                                           {"--txt=a-long-value", "did you mean --text?"},
                                           {"--no-text", "unknown option '--no-text'"},
                                           {"-fx", "unknown option '-fx'"},
                                           {"-t", "-t needs a value (TEXT)"},
                                           {"--zzzzzz", "unknown option '--zzzzzz'"},
                                           {"--text", "--text needs a value"},
                                           {"--flag=1", "takes no value"},
                                           {"--size 1MB", "--size: '1MB' is no size"},
                                           {"-x", "unknown option '-x'"},
                                           {"--number -1", "--number: '-1' is no number"}};
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        struct err err = ERR_INIT;
        struct values v = {0};
        char *argv[32];
        int argc, first;
        CHECK_RC(parse(&v, lines[i][0], argv, &argc, &first, &err), RC_INVALID);
        if (!strstr(err.msg, lines[i][1]))
            test_fail(__FILE__, __LINE__, "'%s' said '%s'", lines[i][0], err.msg);
    }
}

TEST(the_environment_is_asked_after_the_arguments)
{
    struct err err = ERR_INIT;
    struct values v = {0}, w = {0};
    char *argv[32];
    int argc, first;
    CHECK(setenv("TEST_OPT_TEXT", "from outside", 1) == 0);
    CHECK_OK(parse(&v, "x", argv, &argc, &first, &err));
    CHECK_STR(v.text, "from outside");
    CHECK_OK(parse(&w, "--text here", argv, &argc, &first, &err));
    CHECK_STR(w.text, "here");
}

TEST(a_variable_is_not_looked_at_when_its_option_was_given)
{
    struct err err = ERR_INIT;
    struct values v = {0}, w = {0}, x = {0};
    char *argv[32];
    int argc, first;
    CHECK(setenv("TEST_OPT_NUMBER", "nonsense", 1) == 0 && setenv("TEST_OPT_LIST", "env", 1) == 0);
    CHECK_OK(parse(&v, "--number 5 --list a", argv, &argc, &first, &err));
    CHECK(v.number == 5 && v.list.n == 1);
    CHECK_STR(v.list.item[0], "a");
    CHECK_RC(parse(&w, "x", argv, &argc, &first, &err), RC_INVALID);
    CHECK_STR(err.msg, "environment variable TEST_OPT_NUMBER: 'nonsense' is no number");
    CHECK(setenv("TEST_OPT_NUMBER", "", 1) == 0);
    CHECK_OK(parse(&x, "y", argv, &argc, &first, &err));
    CHECK(x.number == 0 && x.list.n == 1);
    CHECK_STR(x.list.item[0], "env");
}

TEST(a_variable_sets_or_clears_a_flag)
{
    static const char *const yes[] = {"1", "true", "yes", "on", "TRUE"};
    static const char *const no[] = {"0", "false", "no", "off", "Off"};
    struct err err = ERR_INIT;
    char *argv[32];
    int argc, first;
    for (size_t i = 0; i < ARRAY_LEN(yes); i++) {
        struct values v = {0};
        CHECK(setenv("TEST_OPT_ON", yes[i], 1) == 0);
        CHECK_OK(parse(&v, "", argv, &argc, &first, &err));
        CHECK(v.on);
        CHECK_OK(parse(&v, "--no-on", argv, &argc, &first, &err));
        CHECK(!v.on);
    }
    for (size_t i = 0; i < ARRAY_LEN(no); i++) {
        struct values v = {.on = true};
        CHECK(setenv("TEST_OPT_ON", no[i], 1) == 0);
        CHECK_OK(parse(&v, "", argv, &argc, &first, &err));
        CHECK(!v.on);
    }
    struct values v = {0};
    CHECK(setenv("TEST_OPT_ON", "maybe", 1) == 0); /* what may protect is not guessed at */
    CHECK_RC(parse(&v, "", argv, &argc, &first, &err), RC_INVALID);
}

TEST(operands_are_counted)
{
    struct err err = ERR_INIT;
    struct values v = {0};
    char *argv[32];
    int argc, first = -1;
    command.min_operands = 1;
    command.max_operands = 2;
    CHECK_RC(parse(&v, "-f", argv, &argc, &first, &err), RC_INVALID);
    CHECK_STR(err.msg, "test: missing argument; usage: chrek test [OPTIONS] A B");
    CHECK_RC(parse(&v, "a b c", argv, &argc, &first, &err), RC_INVALID);
    CHECK_STR(err.msg, "test: too many arguments; usage: chrek test [OPTIONS] A B");
    CHECK(first == -1);
    CHECK_OK(parse(&v, "a - -f", argv, &argc, &first, &err)); /* `-` is an operand */
    CHECK(argc - first == 2);
    CHECK_STR(argv[first + 1], "-");
}

TEST(a_list_has_an_end)
{
    struct err err = ERR_INIT;
    struct values v = {0};
    char text[] = "-lx", *argv[OPT_LIST_MAX + 1];
    int first;
    for (size_t i = 0; i < ARRAY_LEN(argv); i++)
        argv[i] = text;
    CHECK_OK(opt_parse(&command, &v, OPT_LIST_MAX, argv, &first, &err));
    CHECK(v.list.n == OPT_LIST_MAX);
    v.list.n = 0;
    CHECK_RC(opt_parse(&command, &v, OPT_LIST_MAX + 1, argv, &first, &err), RC_INVALID);
    CHECK_STR(err.msg, "--list: given more than 64 times");
}

TEST(texts_name_every_option)
{
    static const struct opt_command *const commands[] = {&command, NULL};
    static const struct opt_program program = {
        .name = "prog", .summary = "test", .description = "Tests.", .commands = commands};
    struct err err = ERR_INIT;
    static const char *const shells[] = {"bash", "zsh", "fish"};
    for (size_t i = 0; i < ARRAY_LEN(shells) + 2; i++) {
        CLEANUP(buf_done) struct buf text = BUF_INIT;
        if (i < ARRAY_LEN(shells))
            CHECK_OK(opt_completion(&program, shells[i], &text, &err));
        else if (i == ARRAY_LEN(shells))
            opt_help_command(&program, &command, &text);
        else
            opt_man_command(&program, &command, &text);
        for (const struct opt *o = options; o->name; o++)
            CHECK(strstr(buf_str(&text), o->name));
    }
    CLEANUP(buf_done) struct buf none = BUF_INIT;
    CHECK_RC(opt_completion(&program, "tcsh", &none, &err), RC_INVALID);
    CHECK_STR(opt_nearest_command(&program, "tset"), "test");
    CHECK(opt_nearest_command(&program, "completely") == NULL);
}
