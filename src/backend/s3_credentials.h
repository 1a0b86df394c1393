/* Where the key for S3 comes from, in this order: the environment, a web identity (as of a
 * Kubernetes service account), the shared files with their profiles, the container's service, the
 * machine's (instance metadata, version 2).  What expires is fetched anew five minutes before.
 *
 * Threads: a chain is shared; one fetches, the others wait for it. */
#pragma once

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct s3_chain;

/* A key as it is now. */
struct s3_key {
    char *access, *secret;
    char *token;        /* of a session, or NULL */
    const char *source; /* "the environment", for messages */
};

struct s3_chain_options {
    char *(*env)(const char *name);
    const char *profile; /* [AWS_PROFILE, default] */
    const char *region;  /* for the token service */
    const char *ca_file; /* [the system's] */
};

/* o: texts are copied.  out: the caller's, s3_chain_freep().  errors as http_open() */
enum rc s3_chain_open(const struct s3_chain_options *o, struct s3_chain **out, struct err *err);
void s3_chain_freep(struct s3_chain **c);
/* See backend_after_fork(). */
void s3_chain_after_fork(struct s3_chain *c);

/* fresh   the last one was refused: fetch anew what can be fetched
 * out     the caller's, s3_key_done()
 * errors  RC_DENIED (there are none, or a service refuses them), RC_INVALID (a file or an answer is
 *         not as it should be), those of http_do() */
enum rc s3_chain_get(struct s3_chain *c, bool fresh, struct s3_key *out, struct err *err);
void s3_key_done(struct s3_key *k);

/* Append a value of a shared file: that of `name` in the section, false when there is none.
 * section  "default", "name" or "profile name" */
bool s3_profile_value(const char *text, const char *section, const char *name, struct buf *out);

/* A value of the profile, from the credentials file or else the configuration file; the caller's,
 * NULL when there is none. */
char *s3_profile_get(const struct s3_chain_options *o, const char *name);

/* Seconds since 1970 of an RFC 3339 time in UTC, 0 when it is none. */
uint64_t s3_time(const char *text);
