#include "backend/url.h"

#include "backend/drivers.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define QUERY_MAX 32

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* out: the caller's */
static enum rc decode(const char *text, size_t len, char **out, struct err *err)
{
    CLEANUP(mem_freep) char *plain = mem_alloc(len + 1);
    size_t n = 0;
    for (size_t i = 0; i < len; i++, n++) {
        int c = (unsigned char)text[i];
        if (c == '%') {
            int high = len - i > 2 ? hex_digit(text[i + 1]) : -1;
            int low = len - i > 2 ? hex_digit(text[i + 2]) : -1;
            c = high >= 0 && low >= 0 ? high * 16 + low : 0;
            i += 2;
        }
        if (c < 0x20 || c == 0x7f)
            return err_set(err, RC_INVALID, "the URL has a control character or a bad %%XX");
        plain[n] = (char)c;
    }
    plain[n] = '\0';
    *out = STEAL(plain);
    return RC_OK;
}

static enum rc add_parameter(struct backend_url *u, size_t *n, const char *text, size_t len,
                             struct err *err)
{
    const char *equal = memchr(text, '=', len);
    if (!equal || equal == text || *n == QUERY_MAX)
        return err_set(err, RC_INVALID, "the URL's query must be NAME=VALUE&...");
    enum rc rc = decode(text, (size_t)(equal - text), &u->query[2 * *n], err);
    if (!rc)
        rc = decode(equal + 1, len - (size_t)(equal + 1 - text), &u->query[2 * *n + 1], err);
    if (rc)
        return rc;
    for (size_t i = 0; i < *n; i++)
        if (strcmp(u->query[2 * i], u->query[2 * *n]) == 0)
            return err_set(err, RC_INVALID, "'%s' is in the URL twice", u->query[2 * i]);
    ++*n;
    return RC_OK;
}

static enum rc parse_query(const char *text, struct backend_url *u, struct err *err)
{
    size_t n = 0;
    enum rc rc = RC_OK;
    while (!rc && *text) {
        size_t len = strcspn(text, "&");
        rc = add_parameter(u, &n, text, len, err);
        text += len + (text[len] == '&');
    }
    return rc;
}

/* scheme://host/path?query, with the scheme already known to be there */
static enum rc parse_parts(const char *url, size_t scheme_len, struct backend_url *u,
                           struct err *err)
{
    const char *host = url + scheme_len + strlen("://");
    const char *path = host + strcspn(host, "/?");
    const char *query = path + strcspn(path, "?");
    bool is_file = strcmp(u->scheme, "file") == 0;
    enum rc rc = decode(host, (size_t)(path - host), &u->host, err);
    size_t first = 0, len = (size_t)(query - path);
    while (!is_file && first < len && path[first] == '/')
        first++;
    while (!is_file && len > first && path[len - 1] == '/')
        len--;
    if (!rc)
        rc = decode(path + first, len - first, &u->path, err);
    if (rc)
        return rc;
    if (is_file && (*u->host || u->path[0] != '/' || *query))
        return err_set(err, RC_INVALID, "a file URL is file:///PATH");
    return *query ? parse_query(query + 1, u, err) : RC_OK;
}

/* Length of the scheme, 0 for a path. */
static size_t scheme_of(const char *url)
{
    size_t n = 0;
    while (isalnum((unsigned char)url[n]) || (n > 0 && (url[n] == '+' || url[n] == '-')))
        n++;
    return strncmp(url + n, "://", 3) == 0 ? n : 0;
}

enum rc backend_url_parse(const char *url, struct backend_url *out, struct err *err)
{
    size_t len = strlen(url), n = scheme_of(url);
    if (len == 0 || len > BACKEND_URL_MAX)
        return err_set(err, RC_INVALID, "an URL has 1 to %d bytes", BACKEND_URL_MAX);
    struct backend_url u = {.query = mem_zalloc((2 * QUERY_MAX + 3) * sizeof(char *))};
    const char *scheme = n > 0 ? url : "file";
    size_t scheme_len = n > 0 ? n : strlen(scheme);
    u.scheme = mem_alloc(scheme_len + 1);
    for (size_t i = 0; i < scheme_len; i++)
        u.scheme[i] = (char)tolower((unsigned char)scheme[i]);
    u.scheme[scheme_len] = '\0';
    enum rc rc = RC_OK;
    if (n > 0) {
        rc = parse_parts(url, n, &u, err);
    } else {
        u.host = mem_strdup("");
        u.path = mem_strdup(url);
    }
    if (rc)
        backend_url_done(&u);
    else
        *out = u;
    return rc;
}

void backend_url_done(struct backend_url *u)
{
    for (size_t i = 0; u->query && u->query[i]; i++)
        free(u->query[i]);
    free(u->query);
    free(u->scheme);
    free(u->host);
    free(u->path);
    *u = (struct backend_url){.scheme = NULL};
}

const char *backend_url_get(const struct backend_url *u, const char *name)
{
    for (size_t i = 0; u->query[i]; i += 2)
        if (strcmp(u->query[i], name) == 0)
            return u->query[i + 1];
    return NULL;
}

enum rc backend_url_only(const struct backend_url *u, const char *const *known, struct err *err)
{
    CLEANUP(buf_done) struct buf names = BUF_INIT;
    for (size_t k = 0; known[k]; k++)
        buf_addf(&names, "%s%s", k ? ", " : "", known[k]);
    for (size_t i = 0; u->query[i]; i += 2) {
        size_t k = 0;
        while (known[k] && strcmp(known[k], u->query[i]) != 0)
            k++;
        if (!known[k])
            return err_set(err, RC_INVALID, "no '%.40s' is known for %s URLs; there are: %s",
                           u->query[i], u->scheme, buf_str(&names));
    }
    return RC_OK;
}

static enum rc open_path(const char *path, const struct backend_options *o, struct backend **out,
                         struct err *err)
{
    enum rc rc = o->create ? fs_mkdirs(path, 0700, err) : RC_OK;
    if (rc)
        return rc;
    CLEANUP(fd_closep) int dir = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    if (dir < 0)
        return err_sys(err, "open the directory");
    return backend_local_open(dir, out, err);
}

enum rc backend_open_url(const char *url, const struct backend_options *options,
                         struct backend **out, struct err *err)
{
    const struct backend_options none = {.create = false};
    const struct backend_options *o = options ? options : &none;
    CLEANUP(backend_url_done) struct backend_url u = {.scheme = NULL};
    enum rc rc = backend_url_parse(url, &u, err);
    const char *scheme = u.scheme ? u.scheme : "";
    if (!rc && strcmp(scheme, "file") == 0)
        rc = open_path(u.path, o, out, err);
    else if (!rc && strcmp(scheme, "s3") == 0)
        rc = backend_s3_open(&u, o, out, err);
    else if (!rc && strcmp(scheme, "az") == 0)
        rc = backend_azure_open(&u, o, out, err);
    else if (!rc && strcmp(scheme, "oci") == 0)
        rc = backend_oci_open(&u, o, out, err);
    else if (!rc)
        rc = err_set(
            err, RC_UNSUPPORTED,
            "there is no driver for %.20s://; a store is a directory, or object storage: s3://, "
            "az://, oci:// or object://",
            scheme);
    return rc ? err_ctx(err, rc, "storage '%.*s'", (int)strcspn(url, "?"), url) : RC_OK;
}
