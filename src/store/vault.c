#include "store/vault.h"

#include "base/buf.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/sys.h"
#include "codec/secret.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

static enum rc read_signer(const char *path, struct signature_key **out, struct err *err)
{
    struct stat st;
    CLEANUP(secret_freep) char *text = secret_alloc(SIGNATURE_PEM_MAX);
    CLEANUP(fd_closep) int fd = sys_openat(AT_FDCWD, path, O_RDONLY | O_NOCTTY | O_NONBLOCK, 0);
    size_t n = 0;
    if (fd < 0 || fstat(fd, &st) < 0)
        return errno == ENOENT ? err_set(err, RC_NOT_FOUND,
                                         "signing key '%.200s' is not there; `chrek key generate "
                                         "--sign FILE` makes one",
                                         path)
                               : err_sys(err, "signing key '%.200s'", path);
    if (!S_ISREG(st.st_mode))
        return err_set(err, RC_INVALID, "signing key '%.200s' is no file", path);
    if (st.st_mode & 077)
        return err_set(err, RC_DENIED,
                       "signing key '%.200s' may be read or written by others (mode %04o); make it "
                       "private: chmod 600, or for a Secret `defaultMode: 0400` in its volume",
                       path, (unsigned)st.st_mode & 07777);
    enum rc rc = sys_read_full(fd, text, SIGNATURE_PEM_MAX, &n, err);
    if (!rc)
        rc = signature_key_parse(text, n, out, err);
    return rc ? err_ctx(err, rc, "signing key '%.200s'", path) : RC_OK;
}

static enum rc read_trust_file(int dir, const char *name, struct signature_trust *t,
                               struct err *err)
{
    CLEANUP(buf_done) struct buf text = {.max = SIGNATURE_PEM_MAX};
    enum rc rc = fs_read_file(dir, name, SIGNATURE_PEM_MAX, &text, err);
    if (!rc)
        rc = signature_trust_add(t, buf_str(&text), text.len, err);
    return rc ? err_ctx(err, rc, "trust key '%.200s'", name) : RC_OK;
}

/* A file, or a directory as a mounted ConfigMap or Secret is one. */
static enum rc read_trust(const char *path, struct signature_trust *t, struct err *err)
{
    int fd = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return errno == ENOTDIR  ? read_trust_file(AT_FDCWD, path, t, err)
               : errno == ENOENT ? err_set(err, RC_NOT_FOUND,
                                           "trust key '%.200s' is not there; `chrek key generate "
                                           "--sign FILE` makes it, as FILE.pub",
                                           path)
                                 : err_sys(err, "trust key '%.200s'", path);
    DIR *dir = fdopendir(fd);
    enum rc rc = RC_OK;
    if (!dir) {
        rc = err_sys(err, "read '%.200s'", path);
        fd_closep(&fd);
        return rc;
    }
    for (const struct dirent *e; !rc && (e = readdir(dir));)
        if (e->d_name[0] != '.')
            rc = read_trust_file(dirfd(dir), e->d_name, t, err);
    (void)closedir(dir);
    return !rc && t->n == 0 ? err_set(err, RC_INVALID, "'%.200s' holds no trust key", path) : rc;
}

enum rc vault_open(const struct vault_options *o, struct vault *out, struct err *err)
{
    CLEANUP(vault_done) struct vault v = {.keys = NULL};
    enum rc rc = RC_OK;
    if (o->require && !o->trust_key)
        return err_set(err, RC_INVALID,
                       "a signature is required, and there is no trust key to check "
                       "it with; give --trust-key FILE");
    if (o->key.file || o->key.command)
        rc = keyring_open(&o->key, &v.keys, err);
    if (!rc && o->sign_key)
        rc = read_signer(o->sign_key, &v.signer, err);
    if (!rc && o->trust_key)
        rc = read_trust(o->trust_key, &v.trust, err);
    if (rc)
        return rc;
    *out = v;
    v = (struct vault){.keys = NULL};
    return RC_OK;
}

void vault_done(struct vault *v)
{
    keyring_freep(&v->keys);
    signature_key_freep(&v->signer);
    signature_trust_done(&v->trust);
    *v = (struct vault){.keys = NULL};
}

bool vault_is_empty(const struct vault *v)
{
    return !v->keys && !v->signer && v->trust.n == 0;
}
