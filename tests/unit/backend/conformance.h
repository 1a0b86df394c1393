/* What backend.h promises of every driver, as checks: a driver's test runs all of them, unchanged.
 *
 *   static enum rc open_mine(void *arg, struct backend **out, struct err *err) {...}
 *   static const struct conformance mine = {.open = open_mine};
 *
 *   TEST(conforms) { conformance(&mine); }
 *   TEST(survives_every_failure) { conformance_failures(&mine); }
 *   TEST(survives_a_crash_anywhere) { conformance_crashes(&mine); }
 */
#pragma once

#include "backend/backend.h"

struct conformance {
    /* Opens the storage, always the same: empty before the first of these checks. */
    enum rc (*open)(void *arg, struct backend **out, struct err *err);
    void *arg;
};

/* Everything that needs no failure: content, keys, listings, pieces, threads. */
void conformance(const struct conformance *c);

/* Each call with each fault point failing: an error or success, an object that is whole or absent,
 * no descriptor left open, and a backend that goes on working. */
void conformance_failures(const struct conformance *c);

/* The process dies at each fault point: afterwards the object is whole or absent, and can be
 * written.  Only for a storage that outlives the process. */
void conformance_crashes(const struct conformance *c);
