/* Help, man pages and completions, from the tables of base/opt.h. */
#include "base/compiler.h"
#include "base/opt.h"

#include <ctype.h>
#include <string.h>

#define WIDTH 79

/* Add words, wrapped, each line after the first indented. */
static void wrap(struct buf *out, const char *text, size_t indent, size_t column)
{
    while (*text) {
        size_t gap = strspn(text, " "), word = strcspn(text + gap, " \n");
        if (column > indent && column + 1 + word > WIDTH) {
            buf_addf(out, "\n%*s", (int)indent, "");
            column = indent;
        } else if (gap && column > indent) {
            buf_adds(out, " ");
            column++;
        }
        buf_add(out, text + gap, word);
        column += word;
        text += gap + word;
        if (*text == '\n') {
            bool paragraph = text[1] == '\n';
            buf_addf(out, paragraph ? "\n\n%*s" : "\n%*s", (int)indent, "");
            text += paragraph ? 2 : 1;
            column = indent;
        }
    }
    buf_adds(out, "\n");
}

static void option_head(const struct opt *o, struct buf *out)
{
    if (o->letter)
        buf_addf(out, "-%c, ", o->letter);
    buf_addf(out, "--%s%s%s", o->name, o->arg ? " " : "", o->arg ? o->arg : "");
}

void opt_help_command(const struct opt_program *p, const struct opt_command *c, struct buf *out)
{
    buf_addf(out, "Usage: %s %s%s%s\n\n", p->name, c->name, *c->synopsis ? " " : "", c->synopsis);
    wrap(out, c->description, 0, 0);
    if (c->opts->name)
        buf_adds(out, "\nOptions:\n");
    for (const struct opt *o = c->opts; o->name; o++) {
        CLEANUP(buf_done) struct buf head = BUF_INIT;
        option_head(o, &head);
        buf_addf(out, "  %s\n        ", buf_str(&head));
        wrap(out, o->help, 8, 8);
        if (o->env)
            buf_addf(out, "        [environment: %s]\n", o->env);
    }
    if (c->examples)
        buf_addf(out, "\nExamples:\n%s", c->examples);
    buf_addf(out, "\nExit status: see `man %s`.\n", p->name);
}

void opt_help_program(const struct opt_program *p, struct buf *out)
{
    buf_addf(out, "Usage: %s COMMAND [OPTIONS] [ARGUMENTS]\n\n", p->name);
    wrap(out, p->description, 0, 0);
    buf_adds(out, "\nCommands:\n");
    for (const struct opt_command *const *c = p->commands; *c; c++)
        if ((*c)->name[0] != '_')
            buf_addf(out, "  %-12s%s\n", (*c)->name, (*c)->summary);
    buf_addf(out, "\n`%s COMMAND --help` tells more of each; so does `man %s-COMMAND`.\n", p->name,
             p->name);
}

/* ---- man pages ---- */

static void roff(struct buf *out, const char *text)
{
    bool start = true;
    for (; *text; text++) {
        if (start && (*text == '.' || *text == '\''))
            buf_adds(out, "\\&");
        if (*text == '\\')
            buf_adds(out, "\\e");
        else if (*text == '-')
            buf_adds(out, "\\-");
        else if (*text == '\n' && text[1] == '\n') {
            buf_adds(out, "\n.PP\n");
            text++;
        } else
            buf_add(out, text, 1);
        start = *text == '\n';
    }
}

static void section(struct buf *out, const char *title)
{
    buf_addf(out, ".SH %s\n", title);
}

/* "NAME  text" lines become tagged paragraphs. */
static void tagged(struct buf *out, const char *title, const char *lines)
{
    if (!lines)
        return;
    section(out, title);
    while (*lines) {
        size_t n = strcspn(lines, "\n"), tag = strcspn(lines, " ");
        CLEANUP(buf_done) struct buf name = BUF_INIT;
        CLEANUP(buf_done) struct buf text = BUF_INIT;
        buf_add(&name, lines, tag);
        size_t skip = tag + strspn(lines + tag, " ");
        buf_add(&text, lines + skip, n - skip);
        buf_adds(out, ".TP\n.B ");
        roff(out, buf_str(&name));
        buf_adds(out, "\n");
        roff(out, buf_str(&text));
        buf_adds(out, "\n");
        lines += n + (lines[n] == '\n');
    }
}

static void title(struct buf *out, const char *name)
{
    buf_adds(out, ".TH ");
    for (; *name; name++) {
        char c = (char)toupper((unsigned char)*name);
        buf_add(out, &c, 1);
    }
    buf_adds(out, " 1 \"\" \"chrek " CHREK_VERSION "\" \"User commands\"\n");
}

void opt_man_command(const struct opt_program *p, const struct opt_command *c, struct buf *out)
{
    CLEANUP(buf_done) struct buf name = BUF_INIT;
    buf_addf(&name, "%s-%s", p->name, c->name);
    title(out, buf_str(&name));
    section(out, "NAME");
    buf_addf(out, "%s\\-%s \\- %s\n", p->name, c->name, c->summary);
    section(out, "SYNOPSIS");
    buf_addf(out, ".B %s %s\n", p->name, c->name);
    roff(out, c->synopsis);
    buf_adds(out, "\n");
    section(out, "DESCRIPTION");
    roff(out, c->description);
    buf_adds(out, "\n");
    if (c->opts->name)
        section(out, "OPTIONS");
    for (const struct opt *o = c->opts; o->name; o++) {
        CLEANUP(buf_done) struct buf head = BUF_INIT;
        option_head(o, &head);
        buf_adds(out, ".TP\n.B ");
        roff(out, buf_str(&head));
        buf_adds(out, "\n");
        roff(out, o->help);
        if (o->env)
            buf_addf(out, " Environment: %s.", o->env);
        buf_adds(out, "\n");
    }
    if (c->examples) {
        section(out, "EXAMPLES");
        buf_adds(out, ".nf\n");
        roff(out, c->examples);
        buf_adds(out, ".fi\n");
    }
    tagged(out, "EXIT STATUS", p->exit_status);
    section(out, "SEE ALSO");
    buf_addf(out, ".BR %s (1)\n", p->name);
}

void opt_man_program(const struct opt_program *p, struct buf *out)
{
    title(out, p->name);
    section(out, "NAME");
    buf_addf(out, "%s \\- %s\n", p->name, p->summary);
    section(out, "SYNOPSIS");
    buf_addf(out, ".B %s\nCOMMAND [OPTIONS] [ARGUMENTS]\n", p->name);
    section(out, "DESCRIPTION");
    roff(out, p->description);
    buf_adds(out, "\n");
    section(out, "COMMANDS");
    for (const struct opt_command *const *c = p->commands; *c; c++) {
        if ((*c)->name[0] == '_')
            continue;
        buf_addf(out, ".TP\n.BR %s\\-%s (1)\n", p->name, (*c)->name);
        roff(out, (*c)->summary);
        buf_adds(out, "\n");
    }
    tagged(out, "EXIT STATUS", p->exit_status);
    tagged(out, "ENVIRONMENT", p->environment);
    tagged(out, "FILES", p->files);
    section(out, "SEE ALSO");
    buf_adds(out, ".BR criu (8)\n");
}

/* ---- completions ---- */

/* "host|private": the values themselves rather than a name for them. */
static bool is_choice(const struct opt *o)
{
    return o->arg && strchr(o->arg, '|') && islower((unsigned char)o->arg[0]);
}

/* The choices of an option, separated by blanks. */
static void choices(const struct opt *o, struct buf *out)
{
    for (const char *p = o->arg; *p; p++)
        buf_add(out, *p == '|' ? " " : p, 1);
}

static void bash_command(const struct opt_command *c, struct buf *out)
{
    buf_addf(out, "        %s) options='--help", c->name);
    for (const struct opt *o = c->opts; o->name; o++)
        buf_addf(out, " --%s", o->name);
    buf_addf(out, "' from='%s'\n", c->candidates ? c->candidates : "");
    buf_adds(out, "            case $before in\n");
    for (const struct opt *o = c->opts; o->name; o++) {
        if (!o->arg)
            continue;
        buf_addf(out, "            --%s) value=1 words='", o->name);
        if (is_choice(o))
            choices(o, out);
        buf_adds(out, "' ;;\n");
    }
    buf_adds(out, "            esac ;;\n");
}

static void bash_completion(const struct opt_program *p, struct buf *out)
{
    buf_addf(out, "# bash completion of %s, generated\n_%s() {\n", p->name, p->name);
    buf_adds(out, "    local cur=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}\n"
                  "    local words='' options='' from='' value=''\n"
                  "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        words='");
    for (const struct opt_command *const *c = p->commands; *c; c++)
        if ((*c)->name[0] != '_')
            buf_addf(out, "%s ", (*c)->name);
    buf_adds(out, "'\n    else\n        case ${COMP_WORDS[1]} in\n");
    for (const struct opt_command *const *c = p->commands; *c; c++)
        if ((*c)->name[0] != '_')
            bash_command(*c, out);
    buf_addf(out,
             "        esac\n        if [ -z \"$value\" ]; then\n            case $cur in\n"
             "            -*) words=$options ;;\n"
             "            *) [ -z \"$from\" ] || words=$(%s \"$from\" 2>/dev/null) ;;\n"
             "            esac\n        fi\n    fi\n"
             "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n}\n"
             "complete -o default -F _%s %s\n",
             p->name, p->name, p->name);
}

/* Text inside single quotes of zsh or fish. */
static void quoted(struct buf *out, const char *text)
{
    for (size_t n = strcspn(text, "\n"); n--; text++)
        if (*text == '\'')
            buf_adds(out, "`");
        else if (*text == '[' || *text == ']' || *text == ':')
            buf_adds(out, " ");
        else
            buf_add(out, text, 1);
}

static void zsh_completion(const struct opt_program *p, struct buf *out)
{
    buf_addf(out, "#compdef %s\n# generated\n_%s() {\n    local -a commands\n    commands=(\n",
             p->name, p->name);
    for (const struct opt_command *const *c = p->commands; *c; c++) {
        if ((*c)->name[0] == '_')
            continue;
        buf_addf(out, "        '%s:", (*c)->name);
        quoted(out, (*c)->summary);
        buf_adds(out, "'\n");
    }
    buf_adds(out, "    )\n    if (( CURRENT == 2 )); then\n        _describe command commands\n"
                  "        return\n    fi\n    case $words[2] in\n");
    for (const struct opt_command *const *c = p->commands; *c; c++) {
        if ((*c)->name[0] == '_')
            continue;
        if ((*c)->candidates)
            buf_addf(out, "    %s) _arguments '*:name:{compadd -- ${(f)\"$(%s %s 2>/dev/null)\"}}'",
                     (*c)->name, p->name, (*c)->candidates);
        else
            buf_addf(out, "    %s) _arguments '*:file:_files'", (*c)->name);
        for (const struct opt *o = (*c)->opts; o->name; o++) {
            buf_addf(out, " '--%s[", o->name);
            quoted(out, o->help);
            buf_adds(out, o->arg ? "]:value:" : "]");
            buf_adds(out, is_choice(o) ? "(" : o->arg ? "_files" : "");
            if (is_choice(o))
                choices(o, out);
            buf_adds(out, is_choice(o) ? ")'" : "'");
        }
        buf_adds(out, " ;;\n");
    }
    buf_addf(out, "    esac\n}\n_%s \"$@\"\n", p->name);
}

static void fish_completion(const struct opt_program *p, struct buf *out)
{
    buf_addf(out, "# fish completion of %s, generated\n", p->name);
    for (const struct opt_command *const *c = p->commands; *c; c++) {
        if ((*c)->name[0] == '_')
            continue;
        buf_addf(out, "complete -c %s -n __fish_use_subcommand -a %s -d '", p->name, (*c)->name);
        quoted(out, (*c)->summary);
        buf_adds(out, "'\n");
        if ((*c)->candidates)
            buf_addf(out,
                     "complete -c %s -n '__fish_seen_subcommand_from %s' -f -a '(%s %s "
                     "2>/dev/null)'\n",
                     p->name, (*c)->name, p->name, (*c)->candidates);
        for (const struct opt *o = (*c)->opts; o->name; o++) {
            buf_addf(out, "complete -c %s -n '__fish_seen_subcommand_from %s' -l %s ", p->name,
                     (*c)->name, o->name);
            if (is_choice(o)) {
                buf_adds(out, "-x -a '");
                choices(o, out);
                buf_adds(out, "' -d '");
            } else {
                buf_adds(out, o->arg ? "-r -d '" : "-d '");
            }
            quoted(out, o->help);
            buf_adds(out, "'\n");
        }
    }
}

enum rc opt_completion(const struct opt_program *p, const char *shell, struct buf *out,
                       struct err *err)
{
    if (strcmp(shell, "bash") == 0)
        bash_completion(p, out);
    else if (strcmp(shell, "zsh") == 0)
        zsh_completion(p, out);
    else if (strcmp(shell, "fish") == 0)
        fish_completion(p, out);
    else
        return err_set(err, RC_INVALID, "no completion for '%.32s'; want bash, zsh or fish", shell);
    return RC_OK;
}
