#include "backend/azure_sign.h"

#include "base/mem.h"
#include "codec/base64.h"
#include "codec/sha256.h"

#include <string.h>
#include <strings.h>

/* strftime() would speak the user's language. */
void azure_date(time_t now, char out[AZURE_DATE_LEN + 1])
{
    static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    struct tm tm;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    (void)gmtime_r(&now, &tm);
    buf_addf(&text, "%s, %02d %s %04d %02d:%02d:%02d GMT", days[tm.tm_wday], tm.tm_mday,
             months[tm.tm_mon], (tm.tm_year + 1900) % 10000, tm.tm_hour, tm.tm_min, tm.tm_sec);
    memcpy(out, buf_str(&text), AZURE_DATE_LEN + 1);
}

void azure_sign(const struct azure_signing *s, struct buf *out)
{
    uint8_t digest[SHA256_LEN];
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    buf_addf(&text, "%s\n\n\n", s->method);
    if (s->body_len > 0)
        buf_addf(&text, "%ju", (uintmax_t)s->body_len);
    buf_addf(&text, "\n\n\n\n\n%s\n%s\n\n%s\n%s/%s%s%s", s->if_match, s->if_none_match, s->range,
             s->ms_headers, s->account, s->path, s->query);
    sha256_hmac(s->key, s->key_len, buf_str(&text), text.len, digest);
    buf_addf(out, "SharedKey %s:", s->account);
    base64_format(digest, sizeof(digest), out);
}

char *azure_connection_get(const char *text, const char *name)
{
    size_t n = strlen(name);
    while (*text) {
        size_t len = strcspn(text, ";");
        if (len > n && strncasecmp(text, name, n) == 0 && text[n] == '=')
            return mem_asprintf("%.*s", (int)(len - n - 1), text + n + 1);
        text += len + (text[len] == ';');
    }
    return NULL;
}
