/* What a CRIU that has died leaves in the firewall.
 *
 * To keep connections CRIU blocks them, with a rule of iptables for each of their ends, and lets
 * them go at the end of the dump.  In a network namespace that it saves it blocks everything, with
 * a chain called CRIU.  Its log says which rules it has made; of the log's words only those are
 * taken that can be nothing else, as a program chooses some of them.  Threads: safe.
 */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

#define CR_NETLOCK_WORDS 21

/* One line of a log: a rule that was made, as the command that takes it back.
 * out    NULL-terminated words, into `text`
 * text   where the words lie, of `cap` bytes
 * false  it is no such line */
bool cr_netlock_parse(const char *line, size_t len, char *out[CR_NETLOCK_WORDS + 1], char *text,
                      size_t cap);

/* Take back all that the log tells of; what is not there (any more) is fine.
 * dirfd, log  the file; none: there is nothing
 * net_ns      the network namespace of the tree, -1 = ours
 * chain       also a chain called CRIU
 * errors      RC_IO: which program could not be run, or did not end */
enum rc cr_netlock_undo(int dirfd, const char *log, int net_ns, bool chain, struct err *err);
