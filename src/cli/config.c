#include "cli/config.h"

#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "codec/json.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONFIG_MAX ((size_t)1 << 20)

char *config_path(void)
{
    const char *own = getenv("CHREK_CONFIG"), *home = getenv("HOME");
    if (own && *own)
        return mem_strdup(own);
    if (geteuid() == 0 || !home)
        return mem_strdup("/etc/chrek/config.json");
    return mem_asprintf("%s/.config/chrek/config.json", home);
}

static enum rc read_config(struct buf *text, yyjson_doc **out, struct err *err)
{
    CLEANUP(mem_freep) char *path = config_path();
    enum rc rc = fs_read_file(AT_FDCWD, path, CONFIG_MAX, text, err);
    return rc ? rc : json_parse(path, buf_str(text), text->len, out, err);
}

enum rc config_storage(char **out, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    enum rc rc = read_config(&text, &doc, err);
    if (rc && rc != RC_NOT_FOUND)
        return rc;
    const char *storage = doc ? json_str(yyjson_doc_get_root(doc), "storage", CONFIG_DEFAULT_STORE)
                              : CONFIG_DEFAULT_STORE;
    *out = mem_strdup(storage);
    return RC_OK;
}

/* The configuration to be changed.  What cannot be read is not overwritten.
 * out  the caller's; its root is an object */
static enum rc edit(yyjson_mut_doc **out, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    enum rc rc = read_config(&text, &doc, err);
    if (rc && rc != RC_NOT_FOUND)
        return rc;
    yyjson_mut_doc *m = doc ? yyjson_doc_mut_copy(doc, NULL) : yyjson_mut_doc_new(NULL);
    if (!doc)
        yyjson_mut_doc_set_root(m, yyjson_mut_obj(m));
    *out = m;
    return RC_OK;
}

static enum rc save(yyjson_mut_doc *m, struct err *err)
{
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    CLEANUP(mem_freep) char *path = config_path();
    CLEANUP(mem_freep) char *dir = mem_strdup(path);
    json_write(m, &out);
    buf_adds(&out, "\n");
    *strrchr(dir, '/') = '\0';
    enum rc rc = fs_mkdirs(dir, 0755, err);
    return rc ? rc : fs_write_atomic(AT_FDCWD, path, out.data, out.len, 0644, err);
}

enum rc config_set_storage(const char *storage, struct err *err)
{
    CLEANUP(json_mut_docp) yyjson_mut_doc *m = NULL;
    enum rc rc = edit(&m, err);
    if (rc)
        return rc;
    yyjson_mut_val *root = yyjson_mut_doc_get_root(m);
    (void)yyjson_mut_obj_remove_key(root, "storage");
    (void)yyjson_mut_obj_add_str(m, root, "storage", storage);
    return save(m, err);
}

enum rc config_set_cache(const char *dir, uint64_t bytes, struct err *err)
{
    CLEANUP(json_mut_docp) yyjson_mut_doc *m = NULL;
    enum rc rc = edit(&m, err);
    if (rc)
        return rc;
    yyjson_mut_val *root = yyjson_mut_doc_get_root(m);
    if (dir)
        (void)yyjson_mut_obj_remove_key(root, "cache");
    if (dir && *dir)
        (void)yyjson_mut_obj_add_str(m, root, "cache", dir);
    if (bytes) {
        (void)yyjson_mut_obj_remove_key(root, "cache_size");
        (void)yyjson_mut_obj_add_uint(m, root, "cache_size", bytes);
    }
    return save(m, err);
}

/* A configured word, or NULL.  One of the wrong type is an error: a typo must not turn encryption
 * or signatures off. */
static enum rc text_of(yyjson_val *root, const char *key, char **out, struct err *err)
{
    yyjson_val *v = yyjson_obj_get(root, key);
    if (v && !yyjson_is_str(v))
        return err_set(err, RC_CORRUPT, "configuration: '%s' is no string", key);
    *out = mem_strdup(v ? yyjson_get_str(v) : NULL);
    return RC_OK;
}

enum rc config_cache(char **out_dir, uint64_t *out_bytes, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    enum rc rc = read_config(&text, &doc, err);
    if (rc && rc != RC_NOT_FOUND)
        return rc;
    yyjson_val *root = doc ? yyjson_doc_get_root(doc) : NULL;
    rc = text_of(root, "cache", out_dir, err);
    if (!rc)
        *out_bytes = json_u64(root, "cache_size", CONFIG_CACHE_SIZE);
    return rc;
}

enum rc config_read_keys(struct config_keys *out, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    CLEANUP(config_keys_done) struct config_keys k = {.key_file = NULL};
    enum rc rc = read_config(&text, &doc, err);
    if (rc && rc != RC_NOT_FOUND)
        return rc;
    yyjson_val *root = doc ? yyjson_doc_get_root(doc) : NULL;
    yyjson_val *require = yyjson_obj_get(root, "require_signature");
    rc = text_of(root, "key_file", &k.key_file, err);
    if (!rc)
        rc = text_of(root, "key_command", &k.key_command, err);
    if (!rc)
        rc = text_of(root, "sign_key", &k.sign_key, err);
    if (!rc)
        rc = text_of(root, "trust_key", &k.trust_key, err);
    if (!rc && require && !yyjson_is_bool(require))
        rc = err_set(err, RC_CORRUPT,
                     "configuration: 'require_signature' is neither true nor false");
    if (rc)
        return rc;
    k.require_signature = yyjson_get_bool(require);
    *out = k;
    k = (struct config_keys){.key_file = NULL};
    return RC_OK;
}

void config_keys_done(struct config_keys *k)
{
    free(k->key_file);
    free(k->key_command);
    free(k->sign_key);
    free(k->trust_key);
    *k = (struct config_keys){.key_file = NULL};
}
