/* SharedKey authorization of Azure Blob storage, and its connection strings.  Threads: safe. */
#pragma once

#include "base/buf.h"
#include "base/err.h"

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define AZURE_DATE_LEN 29 /* of Mon, 02 Jan 2006 15:04:05 GMT, without the NUL */

struct azure_signing {
    const char *account;
    const void *key; /* decoded */
    size_t key_len;
    const char *method;
    uint64_t body_len;
    const char *if_match, *if_none_match, *range; /* headers, "" for none */
    const char *ms_headers;                       /* "x-ms-...:value\n" of each, sorted by name */
    const char *path;                             /* of the URL, escaped */
    const char *query; /* "\nname:value" of each, decoded, sorted by name; "" for none */
};

void azure_date(time_t now, char out[AZURE_DATE_LEN + 1]);

/* Append the value of the Authorization header. */
void azure_sign(const struct azure_signing *s, struct buf *out);

/* A value of a connection string (Name=Value;...), the name in any case; the caller's, NULL when it
 * is not there. */
char *azure_connection_get(const char *text, const char *name);
