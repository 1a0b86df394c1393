#include "kube/config.h"

#include "base/buf.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "codec/base64.h"
#include "codec/yaml.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define FILE_MAX ((size_t)4 << 20)

static void wipe(char **secret)
{
    if (*secret)
        explicit_bzero(*secret, strlen(*secret));
    free(STEAL(*secret));
}

static void free_list(char **list)
{
    for (char **p = list; p && *p; p++)
        free(*p);
    free(list);
}

void kube_config_done(struct kube_config *c)
{
    free(c->server);
    free(c->ca_pem);
    free(c->cert_pem);
    wipe(&c->key_pem);
    wipe(&c->token);
    free(c->token_file);
    free_list(c->exec_argv);
    free_list(c->exec_env);
    free(c->exec_version);
    free(c->name_space);
    *c = (struct kube_config){.server = NULL};
}

static enum rc read_text(const char *path, char **out, struct err *err)
{
    CLEANUP(buf_done) struct buf text = {.max = FILE_MAX};
    enum rc rc = fs_read_file(AT_FDCWD, path, FILE_MAX, &text, err);
    if (!rc)
        *out = text.data ? buf_steal(&text) : mem_strdup("");
    return rc;
}

/* An URL without slashes at its end. */
static enum rc set_server(const char *url, struct kube_config *c, struct err *err)
{
    if (strncmp(url, "https://", 8) != 0 && strncmp(url, "http://", 7) != 0)
        return err_set(err, RC_INVALID, "API server '%.200s': no http or https URL", url);
    c->server = mem_strdup(url);
    for (size_t n = strlen(c->server); n > 0 && c->server[n - 1] == '/'; n--)
        c->server[n - 1] = '\0';
    return RC_OK;
}

/* ---- kubeconfig ---- */

/* The member of that name of [{name: NAME, KIND: {...}}, ...]; an empty object for an empty one. */
static enum rc find_named(yyjson_val *root, const char *list, const char *kind, const char *name,
                          yyjson_val **out, struct err *err)
{
    size_t i, max;
    yyjson_val *item;
    yyjson_arr_foreach(yyjson_obj_get(root, list), i, max, item)
    {
        if (strcmp(json_str(item, "name", ""), name) == 0) {
            *out = yyjson_obj_get(item, kind);
            return RC_OK;
        }
    }
    return err_set(err, RC_NOT_FOUND, "the kubeconfig has no %s '%.100s'", kind, name);
}

/* A file's path, relative to the kubeconfig's folder. */
static char *beside(const char *config, const char *path)
{
    const char *slash = strrchr(config, '/');
    if (path[0] == '/' || !slash)
        return mem_strdup(path);
    return mem_asprintf("%.*s/%s", (int)(slash - config), config, path);
}

/* KEY-data holds the file itself, KEY its path; the first counts. */
static enum rc read_pem(yyjson_val *from, const char *key, const char *config, char **out,
                        struct err *err)
{
    CLEANUP(mem_freep) char *data_key = mem_asprintf("%s-data", key);
    const char *data = json_str(from, data_key, NULL), *file = json_str(from, key, NULL);
    enum rc rc = RC_OK;
    if (data && *data) {
        CLEANUP(buf_done) struct buf text = {.max = FILE_MAX};
        rc = base64_parse(data, strlen(data), &text, err);
        if (!rc)
            *out = text.data ? buf_steal(&text) : mem_strdup("");
    } else if (file && *file) {
        CLEANUP(mem_freep) char *path = beside(config, file);
        rc = read_text(path, out, err);
    }
    return rc ? err_ctx(err, rc, "%s", key) : RC_OK;
}

static enum rc read_cluster(yyjson_val *cluster, const char *path, struct kube_config *c,
                            struct err *err)
{
    static const char *const unknown[] = {"proxy-url", "tls-server-name"};
    if (json_bool(cluster, "insecure-skip-tls-verify", false))
        return err_set(err, RC_UNSUPPORTED,
                       "insecure-skip-tls-verify: an unverified server would be given our "
                       "credentials; name its certificate-authority instead");
    for (size_t i = 0; i < ARRAY_LEN(unknown); i++)
        if (json_str(cluster, unknown[i], NULL))
            return err_set(err, RC_UNSUPPORTED, "the kubeconfig's '%s' is not supported",
                           unknown[i]);
    enum rc rc = set_server(json_str(cluster, "server", ""), c, err);
    return rc ? rc : read_pem(cluster, "certificate-authority", path, &c->ca_pem, err);
}

/* The program's path is relative to the kubeconfig if it has a slash; else it is looked for. */
static enum rc read_exec(yyjson_val *exec, const char *path, struct kube_config *c, struct err *err)
{
    yyjson_val *args = yyjson_obj_get(exec, "args"), *env = yyjson_obj_get(exec, "env"), *v;
    const char *command = json_str(exec, "command", ""),
               *version = json_str(exec, "apiVersion", "");
    size_t i, max, n = 1;
    if (!*command || !*version)
        return err_set(err, RC_INVALID, "exec: no command or no apiVersion");
    if (json_bool(exec, "provideClusterInfo", false))
        return err_set(err, RC_UNSUPPORTED, "exec: provideClusterInfo is not supported");
    c->exec_version = mem_strdup(version);
    c->exec_argv = mem_zalloc((yyjson_arr_size(args) + 2) * sizeof(char *));
    c->exec_argv[0] = strchr(command, '/') ? beside(path, command) : mem_strdup(command);
    yyjson_arr_foreach(args, i, max, v)
    {
        if (yyjson_is_str(v))
            c->exec_argv[n++] = mem_strdup(yyjson_get_str(v));
    }
    c->exec_env = mem_zalloc((yyjson_arr_size(env) + 1) * sizeof(char *));
    n = 0;
    yyjson_arr_foreach(env, i, max, v)
    {
        c->exec_env[n++] =
            mem_asprintf("%s=%s", json_str(v, "name", "_"), json_str(v, "value", ""));
    }
    return RC_OK;
}

static enum rc read_user(yyjson_val *user, const char *path, struct kube_config *c, struct err *err)
{
    static const char *const unknown[] = {"auth-provider", "username", "as"};
    const char *token = json_str(user, "token", NULL), *file = json_str(user, "tokenFile", NULL);
    for (size_t i = 0; i < ARRAY_LEN(unknown); i++)
        if (yyjson_obj_get(user, unknown[i]))
            return err_set(err, RC_UNSUPPORTED,
                           "the kubeconfig's user logs in by '%s', which is not supported: use a "
                           "token or a client certificate",
                           unknown[i]);
    enum rc rc = read_pem(user, "client-certificate", path, &c->cert_pem, err);
    if (!rc)
        rc = read_pem(user, "client-key", path, &c->key_pem, err);
    if (!rc && !c->cert_pem != !c->key_pem)
        rc = err_set(err, RC_INVALID, "a client certificate without its key, or a key alone");
    if (file && *file)
        c->token_file = beside(path, file);
    else
        c->token = mem_strdup(token);
    if (!rc && !c->token && !c->token_file && yyjson_is_obj(yyjson_obj_get(user, "exec")))
        rc = read_exec(yyjson_obj_get(user, "exec"), path, c, err);
    return rc;
}

static enum rc read_context(yyjson_val *root, const char *name, const char *path,
                            struct kube_config *c, struct err *err)
{
    yyjson_val *context = NULL, *cluster = NULL, *user = NULL;
    enum rc rc = find_named(root, "contexts", "context", name, &context, err);
    if (!rc)
        rc = find_named(root, "clusters", "cluster", json_str(context, "cluster", ""), &cluster,
                        err);
    if (!rc)
        rc = find_named(root, "users", "user", json_str(context, "user", ""), &user, err);
    if (!rc)
        rc = read_cluster(cluster, path, c, err);
    if (!rc)
        rc = read_user(user, path, c, err);
    c->name_space = mem_strdup(json_str(context, "namespace", "default"));
    return rc;
}

enum rc kube_config_read(const char *path, const char *context, struct kube_config *out,
                         struct err *err)
{
    CLEANUP(mem_freep) char *text = NULL;
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    CLEANUP(kube_config_done) struct kube_config c = {.server = NULL};
    enum rc rc = read_text(path, &text, err);
    if (!rc)
        rc = yaml_parse("the kubeconfig", text, strlen(text), &doc, err);
    yyjson_val *root = yyjson_doc_get_root(doc);
    if (!rc)
        rc = read_context(root, context ? context : json_str(root, "current-context", ""), path, &c,
                          err);
    if (rc)
        return err_ctx(err, rc, "'%.200s'", path);
    *out = c;
    c = (struct kube_config){.server = NULL};
    return RC_OK;
}

/* ---- in a pod ---- */

enum rc kube_config_in_cluster(const char *dir, const char *host, const char *port,
                               struct kube_config *out, struct err *err)
{
    CLEANUP(kube_config_done) struct kube_config c = {.server = NULL};
    CLEANUP(mem_freep) char *ca = mem_asprintf("%s/ca.crt", dir);
    CLEANUP(mem_freep) char *name_space = mem_asprintf("%s/namespace", dir);
    if (!host || !*host || !port || !*port)
        return err_set(err, RC_NOT_FOUND,
                       "no API server: KUBERNETES_SERVICE_HOST and _PORT are set in a pod only; "
                       "elsewhere name a kubeconfig");
    bool v6 = strchr(host, ':') != NULL;
    CLEANUP(mem_freep)
    char *url = mem_asprintf("https://%s%s%s:%s", v6 ? "[" : "", host, v6 ? "]" : "", port);
    enum rc rc = set_server(url, &c, err);
    if (!rc)
        rc = read_text(ca, &c.ca_pem, err);
    if (!rc && read_text(name_space, &c.name_space, NULL) != RC_OK)
        c.name_space = mem_strdup("default");
    if (rc)
        return err_ctx(err, rc, "service account");
    c.token_file = mem_asprintf("%s/token", dir);
    *out = c;
    c = (struct kube_config){.server = NULL};
    return RC_OK;
}
