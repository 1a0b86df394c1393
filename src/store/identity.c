#include "store/identity.h"

#include "base/compiler.h"
#include "base/fs.h"
#include "base/listing.h"
#include "base/mem.h"
#include "base/rand.h"
#include "base/sys.h"
#include "codec/digest.h"
#include "codec/hex.h"
#include "codec/json.h"
#include "store/done.h"
#include "store/manifest.h"
#include "store/memory.h"
#include "store/metadata.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define INVENTORY_NAME "inventory.img"
#define STAGING ".tmp-"
#define RANDOM_DIGITS 8U
#define CHECK_DIGITS 8U

/* ---- by content ---- */

static bool says_done(yyjson_val *root)
{
    return yyjson_is_bool(yyjson_obj_get(root, "success"));
}

static bool says_manifest(yyjson_val *root)
{
    return yyjson_is_uint(yyjson_obj_get(root, "format")) &&
           yyjson_is_arr(yyjson_obj_get(root, "files"));
}

/* The contract's keys together: "checkpoint_id" alone is also a word of those who train models. */
static bool says_metadata(yyjson_val *root)
{
    return yyjson_is_obj(yyjson_obj_get(root, "chrek")) ||
           (yyjson_is_str(yyjson_obj_get(root, "checkpoint_id")) &&
            yyjson_is_obj(yyjson_obj_get(root, "criu_options")));
}

static const struct {
    const char *name;
    size_t max;
    bool (*says)(yyjson_val *root);
    const char *begin; /* as whoever keeps to the contract writes it: also of one that is cut off */
} documents[] = {
    {DONE_NAME, DONE_MAX, says_done, "{\n  \"checkpoint_id\": \""},
    {METADATA_NAME, METADATA_MAX, says_metadata, "{\n  \"checkpoint_id\": \""},
    {MANIFEST_NAME, MANIFEST_MAX, says_manifest, "{\n  \"format\": "},
};

static const struct {
    const char *name;
    size_t len;
    unsigned char magic[8];
} binaries[] = {
    {INVENTORY_NAME, 4, {0x16, 0x31, 0x31, 0x58}},
    {MEMORY_NAME, 8, {'c', 'h', 'r', 'e', 'k', 'm', 'e', 'm'}},
};

/* Of what is no file, or too long, nothing is said. */
static enum rc ask_document(int dir, size_t i, bool *out, struct err *err)
{
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    CLEANUP(buf_done) struct buf text = {.max = documents[i].max};
    struct stat st;
    if (fstatat(dir, documents[i].name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
        return RC_OK;
    enum rc rc = fs_read_file(dir, documents[i].name, documents[i].max, &text, err);
    if (rc == RC_NOT_FOUND || rc == RC_TOO_BIG)
        return RC_OK;
    if (rc)
        return rc;
    if (json_parse(documents[i].name, buf_str(&text), text.len, &doc, NULL) == RC_OK)
        *out = documents[i].says(yyjson_doc_get_root(doc));
    else
        *out = strncmp(buf_str(&text), documents[i].begin, strlen(documents[i].begin)) == 0;
    return RC_OK;
}

static enum rc ask_binary(int dir, size_t i, bool *out, struct err *err)
{
    unsigned char data[sizeof(binaries[i].magic)];
    struct stat st;
    size_t n = 0;
    if (fstatat(dir, binaries[i].name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
        return RC_OK;
    CLEANUP(fd_closep)
    int fd = sys_openat(dir, binaries[i].name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
    if (fd < 0)
        return err_sys(err, "open '%s'", binaries[i].name);
    enum rc rc = sys_read_full(fd, data, binaries[i].len, &n, err);
    *out = !rc && n == binaries[i].len && memcmp(data, binaries[i].magic, n) == 0;
    return rc;
}

static enum rc is_empty(int dir, bool *out, struct err *err)
{
    CLEANUP(listing_done) struct listing files = {.n = 0};
    enum rc rc = listing_read(dir, ".", &files, err);
    if (!rc)
        *out = files.n == 0;
    return rc;
}

enum rc identity_of_dir(int dir, enum identity *out, struct err *err)
{
    bool found = false, empty = false;
    enum rc rc = RC_OK;
    for (size_t i = 0; !rc && !found && i < ARRAY_LEN(documents); i++)
        rc = ask_document(dir, i, &found, err);
    for (size_t i = 0; !rc && !found && i < ARRAY_LEN(binaries); i++)
        rc = ask_binary(dir, i, &found, err);
    if (!rc && !found)
        rc = is_empty(dir, &empty, err);
    if (!rc)
        *out = found ? IDENTITY_CHECKPOINT : empty ? IDENTITY_NOTHING : IDENTITY_FOREIGN;
    return rc;
}

enum rc identity_of(int base, const char *name, enum identity *out, struct err *err)
{
    CLEANUP(fd_closep) int dir = sys_openat(base, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (dir < 0 && errno == ENOENT) {
        *out = IDENTITY_NOTHING;
        return RC_OK;
    }
    if (dir < 0 && (errno == ENOTDIR || errno == ELOOP)) {
        *out = IDENTITY_FOREIGN;
        return RC_OK;
    }
    if (dir < 0)
        return err_sys(err, "look at '%s'", name);
    enum rc rc = identity_of_dir(dir, out, err);
    return rc ? err_ctx(err, rc, "look at '%s'", name) : RC_OK;
}

/* ---- by name ---- */

static void check_of(const char *name, size_t len, char out[2 * DIGEST_LEN + 1])
{
    struct digest d;
    digest_of(name, len, &d);
    hex_format(d.bytes, CHECK_DIGITS / 2, out);
}

char *identity_staging_name(const char *id)
{
    char random[RANDOM_DIGITS + 1], check[2 * DIGEST_LEN + 1];
    rand_hex(random, RANDOM_DIGITS);
    CLEANUP(mem_freep) char *name = mem_asprintf("%.200s" STAGING "%s", id, random);
    check_of(name, strlen(name), check);
    return mem_asprintf("%s%s", name, check);
}

bool identity_is_staging(const char *name)
{
    char check[2 * DIGEST_LEN + 1];
    size_t n = strlen(name), tail = sizeof(STAGING) - 1 + RANDOM_DIGITS + CHECK_DIGITS;
    if (n <= tail || strncmp(name + n - tail, STAGING, sizeof(STAGING) - 1) != 0)
        return false;
    check_of(name, n - CHECK_DIGITS, check);
    return strcmp(name + n - CHECK_DIGITS, check) == 0;
}
