/* A server that speaks enough S3 for our driver, keeps everything in memory, and fails on demand as
 * no real one does.  It checks that requests are signed, not the signature: real servers do that
 * (tests/servers).  Threads: safe. */
#pragma once

#include "harness/httpd.h"

#include <stdatomic.h>
#include <stdbool.h>

enum fake_fault {
    FAKE_NONE,
    FAKE_STORM,      /* every third request is answered by 503 */
    FAKE_DEAF,       /* every third one by a reset, and not carried out */
    FAKE_MUTE,       /* every third one by a reset, after it was carried out */
    FAKE_HALF,       /* every third answer with a body breaks off in its middle */
    FAKE_SHORT,      /* every third range is shorter than asked for */
    FAKE_TRICKLE,    /* every third body pauses in its middle */
    FAKE_LIAR,       /* parts are confirmed with ETags that are not theirs */
    FAKE_NO_TAGS,    /* ... with none */
    FAKE_FICKLE,     /* every answer has another ETag, and If-Match is kept */
    FAKE_LATE_ERROR, /* the end of an upload in parts is answered by 200 with an error */
    FAKE_REFUSE,     /* every request by `status` and `code` */
    FAKE_EXPIRED,    /* requests with the session token "old" are answered by ExpiredToken */
};

struct fake_s3;

struct fake_s3 *fake_s3_start(void);
void fake_s3_stopp(struct fake_s3 **f);
/* "s3://bucket/some/prefix?endpoint=...&region=eu-test-1", borrowed */
const char *fake_s3_url(const struct fake_s3 *f);
struct httpd *fake_s3_httpd(struct fake_s3 *f);

void fake_s3_fail(struct fake_s3 *f, enum fake_fault fault);
/* For FAKE_REFUSE; the text is borrowed. */
void fake_s3_refuse(struct fake_s3 *f, unsigned status, const char *code);
/* Uploads in parts that were begun and not ended. */
unsigned fake_s3_uploads(struct fake_s3 *f);
/* Begin one that nobody will end, `age_s` ago. */
void fake_s3_leave_upload(struct fake_s3 *f, const char *name, unsigned age_s);
/* Objects there are. */
unsigned fake_s3_objects(struct fake_s3 *f);
/* Largest number of parts that were being received at the same time. */
unsigned fake_s3_parallel(struct fake_s3 *f);
/* A header of the last request that made an object; "" when it had none. */
const char *fake_s3_seen(struct fake_s3 *f, const char *name, char *out, size_t cap);
