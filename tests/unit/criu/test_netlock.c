#include "criu/netlock.h"
#include "harness/test.h"

#include <string.h>

#define RULE                                                                                       \
    "iptables -w -t filter -I INPUT --protocol tcp -m mark ! --mark 0xC114 --source 127.0.0.1 "    \
    "--sport 51273 --destination 127.0.0.1 --dport 37768 -j DROP"

static bool is_rule(const char *line)
{
    char text[512], *words[CR_NETLOCK_WORDS + 1];
    return cr_netlock_parse(line, strlen(line), words, text, sizeof(text));
}

TEST(a_rule_of_the_log_is_found)
{
    const char line[] = "(00.145509) \tRunning iptables [" RULE "]";
    char text[512], *words[CR_NETLOCK_WORDS + 1];
    CHECK(cr_netlock_parse(line, strlen(line), words, text, sizeof(text)));
    CHECK_STR(words[0], "iptables");
    CHECK_STR(words[4], "-I");
    CHECK_STR(words[20], "37768");
    CHECK(!words[21]);
    CHECK(is_rule("(00.1) \tRunning ip6tables [ip6tables -w -t filter -I OUTPUT --protocol tcp -m "
                  "mark ! --mark 0xC114 --source fe80::1 --sport 1 --destination ::1 --dport 2 -j "
                  "DROP]"));
}

TEST(nothing_else_is_a_rule)
{
    static const char *const lines[] = {
        "",
        "Running iptables [",
        "Running iptables []",
        "Running iptables [ -j DROP]",
        "(00.1) \tRunning post-dump scripts",
        "(00.1) \tRunning iptables [iptables -w -t filter -D INPUT --protocol tcp -m mark ! --mark "
        "0xC114 --source 127.0.0.1 --sport 5 --destination 127.0.0.1 --dport 3 -j DROP]",
        "(00.1) path /tmp/Running ip [/tmp/evil -w -t filter -I INPUT --protocol tcp -m mark ! "
        "--mark 0xC114 --source 127.0.0.1 --sport 5 --destination 127.0.0.1 --dport 3 -j DROP]",
        "(00.1) \tRunning iptables [iptables -w -t filter -I INPUT --modprobe=/tmp/evil tcp -m "
        "mark "
        "! --mark 0xC114 --source 127.0.0.1 --sport 5 --destination 127.0.0.1 --dport 3 -j DROP]",
        "(00.1) \tRunning iptables [iptables -w -t filter -I INPUT --protocol tcp -m mark ! --mark "
        "0xC114 --source -x --sport 5 --destination 127.0.0.1 --dport 3 -j DROP]",
        "(00.1) \tRunning iptables [" RULE "] and more",
        "(00.1) \tRunning iptables [" RULE " -j DROP]",
    };
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        if (is_rule(lines[i]))
            test_fail(__FILE__, __LINE__, "case %zu", i);
    char text[64], *words[CR_NETLOCK_WORDS + 1];
    const char line[] = "Running iptables [" RULE "]";
    CHECK(!cr_netlock_parse(line, strlen(line), words, text, sizeof(text)));
}
