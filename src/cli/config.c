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

enum rc config_set_storage(const char *storage, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    CLEANUP(mem_freep) char *path = config_path();
    enum rc rc = read_config(&text, &doc, err);
    if (rc && rc != RC_NOT_FOUND)
        return rc; /* what we cannot read we do not overwrite */
    CLEANUP(json_mut_docp)
    yyjson_mut_doc *m = doc ? yyjson_doc_mut_copy(doc, NULL) : yyjson_mut_doc_new(NULL);
    if (!doc)
        yyjson_mut_doc_set_root(m, yyjson_mut_obj(m));
    yyjson_mut_val *root = yyjson_mut_doc_get_root(m);
    (void)yyjson_mut_obj_remove_key(root, "storage");
    (void)yyjson_mut_obj_add_str(m, root, "storage", storage);
    json_write(m, &out);
    buf_adds(&out, "\n");
    CLEANUP(mem_freep) char *dir = mem_strdup(path);
    *strrchr(dir, '/') = '\0';
    rc = fs_mkdirs(dir, 0755, err);
    return rc ? rc : fs_write_atomic(AT_FDCWD, path, out.data, out.len, 0644, err);
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
