/* Encrypted and signed checkpoints, as the store's callers see them. */
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "harness/test.h"
#include "store/gc.h"
#include "store/page_writer.h"
#include "store/store.h"
#include "unit/store/samples.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char *path_of(const char *name)
{
    return mem_asprintf("%s/%s", test_dir(), name);
}

static void write_file(const char *name, const void *data, size_t len, mode_t mode)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *path = path_of(name);
    CHECK_OK(fs_write_whole(AT_FDCWD, path, data, len, mode, &err));
    CHECK(chmod(path, mode) == 0);
}

static void read_file(const char *name, struct buf *out)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *path = path_of(name);
    CHECK_OK(fs_read_file(AT_FDCWD, path, 1 << 20, out, &err));
}

/* A key file of 32 times `c`, once. */
static char *key_file(char c)
{
    char key[CIPHER_KEY], name[] = {'k', c, '\0'};
    memset(key, c, sizeof(key));
    write_file(name, key, sizeof(key), 0600);
    return path_of(name);
}

/* A pair for signatures in files <name> and <name>.pub. */
static void make_pair(const char *name)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf private = BUF_INIT;
    CLEANUP(buf_done) struct buf public = BUF_INIT;
    CLEANUP(mem_freep) char *public_name = mem_asprintf("%s.pub", name);
    CHECK_OK(signature_generate(&private, &public, &err));
    write_file(name, private.data, private.len, 0600);
    write_file(public_name, public.data, public.len, 0644);
}

/* key: of a key file, '\0' none; signer, trust: names of files in the test's directory or NULL */
static void open_vault(char key, const char *signer, const char *trust, struct vault *out)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *file = key ? key_file(key) : NULL;
    CLEANUP(mem_freep) char *sign = signer ? path_of(signer) : NULL;
    CLEANUP(mem_freep) char *trusted = trust ? path_of(trust) : NULL;
    struct vault_options o = {.key = {.file = file}, .sign_key = sign, .trust_key = trusted};
    CHECK_OK(vault_open(&o, out, &err));
}

static struct store *open_store(const struct vault *v)
{
    struct err err = ERR_INIT;
    struct store *s = NULL;
    CLEANUP(mem_freep) char *path = path_of("store");
    CHECK_OK(store_open(path, &s, &err));
    store_use_vault(s, v);
    return s;
}

/* Two pages, of which the content says the first byte. */
static enum rc pack_memory(struct store *s, struct store_staging *g, char c, struct err *err)
{
    CLEANUP(page_writer_freep) struct page_writer *w = NULL;
    CLEANUP(memory_done) struct memory m = {0};
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(fd_closep) int fd = memfd_create("pages", MFD_CLOEXEC);
    struct page_writer_options o = {.backend = store_backend(s),
                                    .domain = store_staging_domain(g),
                                    .alone = store_staging_is_alone(g),
                                    .codec = COMPRESS_LZ4,
                                    .threads = 1};
    struct page_writer_totals t;
    char page[MEMORY_PAGE];
    memset(page, c, sizeof(page));
    CHECK(pwrite(fd, page, sizeof(page), 0) > 0 && pwrite(fd, "x", 1, 2 * MEMORY_PAGE - 1) == 1);
    enum rc rc = page_writer_open(&o, &w, err);
    if (!rc)
        rc = sample_file(w, 1, fd, err);
    if (!rc)
        rc = page_writer_finish(w, &m, &t, err);
    if (rc)
        return rc;
    memory_format(&m, &text);
    return fs_write_whole(store_staging_fd(g), MEMORY_NAME, text.data, text.len, 0600, err);
}

static char *secret_command[] = {(char *)(uintptr_t) "server",
                                 (char *)(uintptr_t) "--password=hunter2", NULL};

static enum rc make(struct store *s, const char *id, const char *content, struct err *err)
{
    CLEANUP(store_abortp) struct store_staging *g = NULL;
    struct metadata m = {.ours = true, .root_pid = 301, .packed = true, .command = secret_command};
    enum rc rc = store_begin(s, id, false, &g, err);
    if (rc == RC_DENIED && geteuid() != 0)
        test_skip("machine: a directory in memory takes CAP_SYS_ADMIN");
    if (!rc)
        rc = fs_write_whole(store_staging_fd(g), "core-1.img", content, strlen(content), 0600, err);
    if (!rc)
        rc = fs_write_whole(store_staging_fd(g), "dump.log", "hunter2", 7, 0600, err);
    if (!rc)
        rc = pack_memory(s, g, content[0], err);
    if (!rc)
        rc = store_commit(g, &m, true, err);
    m.command = NULL;
    metadata_done(&m);
    return rc;
}

/* Everything that a restore would read; RC_OK only if it is all there and right. */
static enum rc use(struct store *s, const char *id, const char *content, struct err *err)
{
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    const struct page_reader *pages = NULL;
    char page[2 * MEMORY_PAGE];
    int fd = -1;
    enum rc rc = store_find(s, id, &e, err);
    if (!rc)
        rc = store_entry_unlocked(e, err);
    if (!rc)
        rc = store_verify(e, STORE_SMALL, 1, NULL, err);
    if (!rc)
        rc = store_entry_reveal(e, "core-*.img", &fd, err);
    if (!rc)
        rc = store_entry_pages(e, &pages, err);
    if (!rc)
        rc = page_reader_pages(pages, 1, 0, 2, page, err);
    if (rc)
        return rc;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CHECK(fs_read_file(fd, "core-1.img", 1000, &text, err) == RC_OK);
    CHECK_STR(buf_str(&text), content);
    CHECK(page[0] == content[0] && page[4095] == content[0] && page[2 * MEMORY_PAGE - 1] == 'x');
    const struct metadata *m = store_entry_metadata(e);
    CHECK(m->root_pid == 301 && m->command && strcmp(m->command[1], "--password=hunter2") == 0);
    CHECK_STR(m->checkpoint_id, id);
    return RC_OK;
}

static void expect(struct store *s, const char *id, enum rc want, const char *words)
{
    struct err err = ERR_INIT;
    CHECK_RC(use(s, id, "content", &err), want);
    if (words && !strstr(err.msg, words))
        test_fail(__FILE__, __LINE__, "it said '%s' instead of '%s'", err.msg, words);
}

/* Call for every file below a directory of the test. */
static void each_file(const char *dir, void (*fn)(const char *name, void *arg), void *arg)
{
    CLEANUP(mem_freep) char *path = path_of(dir);
    DIR *d = opendir(path);
    CHECK(d != NULL);
    for (const struct dirent *e; (e = readdir(d));) {
        CLEANUP(mem_freep) char *name = mem_asprintf("%s/%s", dir, e->d_name);
        CLEANUP(mem_freep) char *full = path_of(name);
        struct stat st;
        if (e->d_name[0] == '.')
            continue;
        CHECK(lstat(full, &st) == 0);
        if (S_ISDIR(st.st_mode))
            each_file(name, fn, arg);
        else
            fn(name, arg);
    }
    (void)closedir(d);
}

static void no_secret(const char *name, void *arg)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    (void)arg;
    read_file(name, &text);
    CHECK(!memmem(text.data, text.len, "hunter2", 7));
    CHECK(!memmem(text.data, text.len, "content", 7));
    CHECK(!memmem(text.data, text.len, "core-1", 6));
    CHECK(!memmem(text.data, text.len, "cccccccc", 8));
}

TEST(an_encrypted_checkpoint_comes_back_and_shows_nothing)
{
    struct err err = ERR_INIT;
    CLEANUP(vault_done) struct vault v = {.keys = NULL};
    open_vault('a', NULL, NULL, &v);
    CLEANUP(store_freep) struct store *s = open_store(&v);
    CHECK_OK(make(s, "web", "content", &err));
    expect(s, "web", RC_OK, NULL);
    each_file("store", no_secret, NULL);
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    CHECK_OK(store_find(s, "web", &e, &err));
    CHECK_OK(store_verify(e, STORE_ALL, 2, NULL, &err));
    CHECK(manifest_find(store_entry_manifest(e), "dump.log") != NULL);
}

TEST(without_the_key_or_with_another_it_stays_shut)
{
    struct err err = ERR_INIT;
    CLEANUP(vault_done) struct vault v = {.keys = NULL};
    CLEANUP(vault_done) struct vault wrong = {.keys = NULL};
    open_vault('a', NULL, NULL, &v);
    open_vault('z', NULL, NULL, &wrong);
    CLEANUP(store_freep) struct store *s = open_store(&v);
    CHECK_OK(make(s, "web", "content", &err));
    store_use_vault(s, NULL);
    expect(s, "web", RC_DENIED, "no key");
    store_use_vault(s, &wrong);
    expect(s, "web", RC_DENIED, "wrong key");
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    const struct page_reader *pages = NULL;
    int fd = -1;
    CHECK_OK(store_find(s, "web", &e, &err)); /* found, to be listed and deleted */
    CHECK(!store_entry_metadata(e)->command && store_entry_metadata(e)->key);
    CHECK_RC(store_entry_pages(e, &pages, &err), RC_DENIED);
    CHECK_RC(store_entry_copy(e, "core-1.img", AT_FDCWD, &err), RC_DENIED);
    CHECK_RC(store_entry_reveal(e, "*", &fd, &err), RC_DENIED);
    CHECK_RC(store_verify(e, STORE_ALL, 1, NULL, &err), RC_DENIED);
    CHECK_OK(store_verify(e, STORE_SMALL, 1, NULL, &err)); /* what is on the disk is right */
}

struct flips {
    struct store *store;
    size_t refused, harmless;
};

static void flip_bytes(const char *name, void *arg)
{
    struct flips *f = arg;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    read_file(name, &text);
    for (size_t i = 0; i < text.len; i++) {
        struct err err = ERR_INIT;
        text.data[i] = (char)(text.data[i] ^ (1 << i % 8));
        write_file(name, text.data, text.len, 0600);
        enum rc rc = use(f->store, "web", "content", &err); /* checks what it reads */
        f->refused += rc != RC_OK;
        f->harmless += rc == RC_OK;
        if (rc && !err.msg[0])
            test_fail(__FILE__, __LINE__, "byte %zu of %s: no message", i, name);
        text.data[i] = (char)(text.data[i] ^ (1 << i % 8));
    }
    write_file(name, text.data, text.len, 0600);
}

/* Wherever a bit of an encrypted, signed checkpoint is changed: refused, or without effect. */
static void flip(const char *what)
{
    struct err err = ERR_INIT;
    CLEANUP(vault_done) struct vault v = {.keys = NULL};
    make_pair("signer");
    open_vault('a', "signer", "signer.pub", &v);
    CLEANUP(store_freep) struct store *s = open_store(&v);
    CHECK_OK(make(s, "web", "content", &err));
    struct flips f = {.store = s};
    each_file(what, flip_bytes, &f);
    expect(s, "web", RC_OK, NULL);
    CHECK(f.refused > 0);
}

TEST(a_changed_bit_of_a_file_is_refused_or_without_effect)
{
    flip("store/web");
}

TEST(a_changed_bit_of_a_pack_is_refused_or_without_effect)
{
    flip("store/packs");
}

static void cut_or_remove(const char *name, void *arg)
{
    const struct flips *f = arg;
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(mem_freep) char *path = path_of(name);
    read_file(name, &text);
    write_file(name, text.data, text.len - 1, 0600);
    bool marker = strstr(name, "checkpoint.done") != NULL;
    CHECK(use(f->store, "web", "content", &err) != RC_OK || strstr(name, "packs/"));
    CHECK(unlink(path) == 0);
    CHECK(use(f->store, "web", "content", &err) != RC_OK || strstr(name, "dump.log"));
    CHECK(!marker || strstr(err.msg, "not finished"));
    write_file(name, text.data, text.len, 0600);
}

TEST(a_missing_or_cut_file_is_refused)
{
    struct err err = ERR_INIT;
    CLEANUP(vault_done) struct vault v = {.keys = NULL};
    make_pair("signer");
    open_vault('a', "signer", "signer.pub", &v);
    CLEANUP(store_freep) struct store *s = open_store(&v);
    CHECK_OK(make(s, "web", "content", &err));
    struct flips f = {.store = s};
    each_file("store/web", cut_or_remove, &f);
    expect(s, "web", RC_OK, NULL);
}

TEST(unsigned_and_strangers_checkpoints_are_refused_where_signatures_count)
{
    struct err err = ERR_INIT;
    CLEANUP(vault_done) struct vault none = {.keys = NULL};
    CLEANUP(vault_done) struct vault signs = {.keys = NULL};
    CLEANUP(vault_done) struct vault trusts = {.keys = NULL};
    CLEANUP(vault_done) struct vault stranger = {.keys = NULL};
    make_pair("signer");
    make_pair("stranger");
    open_vault('\0', "signer", NULL, &signs);
    open_vault('\0', NULL, "signer.pub", &trusts);
    open_vault('\0', "stranger", NULL, &stranger);
    CLEANUP(store_freep) struct store *s = open_store(NULL);
    CHECK_OK(make(s, "unsigned", "content", &err));
    store_use_vault(s, &signs);
    CHECK_OK(make(s, "signed", "content", &err));
    store_use_vault(s, &stranger);
    CHECK_OK(make(s, "strange", "content", &err));
    store_use_vault(s, &trusts);
    expect(s, "signed", RC_OK, NULL);
    expect(s, "unsigned", RC_DENIED, "it is unsigned");
    expect(s, "strange", RC_DENIED, "nobody here trusts");
    store_use_vault(s, NULL); /* nobody asks for signatures */
    expect(s, "signed", RC_OK, NULL);
    expect(s, "unsigned", RC_OK, NULL);
}

/* A signed manifest vouches for everything: what is changed behind it is found. */
TEST(a_signature_covers_every_file)
{
    struct err err = ERR_INIT;
    CLEANUP(vault_done) struct vault v = {.keys = NULL};
    make_pair("signer");
    open_vault('\0', "signer", "signer.pub", &v);
    CLEANUP(store_freep) struct store *s = open_store(&v);
    CHECK_OK(make(s, "web", "content", &err));
    struct flips f = {.store = s};
    flip_bytes("store/web/manifest", &f);
    CHECK(f.harmless == 0);
    struct flips sig = {.store = s}; /* of digits in capitals nothing is wrong */
    flip_bytes("store/web/manifest.sig", &sig);
    CHECK(sig.refused > sig.harmless);
    flip_bytes("store/web/metadata.json", &f);
    flip_bytes("store/web/memory", &f);
    flip_bytes("store/web/core-1.img", &f);
    CHECK(f.harmless == 0);
    write_file("store/web/core-2.img", "smuggled in", 11, 0600);
    expect(s, "web", RC_CORRUPT, "is not in its manifest");
}

static void move_file(const char *from, const char *to)
{
    CLEANUP(mem_freep) char *a = path_of(from);
    CLEANUP(mem_freep) char *b = path_of(to);
    CHECK(rename(a, b) == 0);
}

static void copy_file(const char *from, const char *to)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    read_file(from, &text);
    write_file(to, text.data, text.len, 0600);
}

static void replay(char key, const char *signer)
{
    struct err err = ERR_INIT;
    CLEANUP(vault_done) struct vault v = {.keys = NULL};
    CLEANUP(mem_freep) char *trust = signer ? mem_asprintf("%s.pub", signer) : NULL;
    open_vault(key, signer, trust, &v);
    CLEANUP(store_freep) struct store *s = open_store(&v);
    CHECK_OK(make(s, "web", "content", &err));
    copy_file("store/web/manifest", "old-manifest");
    if (signer)
        copy_file("store/web/manifest.sig", "old-signature");
    CHECK_OK(make(s, "web", "content", &err)); /* again, replacing it */
    copy_file("store/web/manifest", "new-manifest");
    copy_file("old-manifest", "store/web/manifest");
    if (signer)
        copy_file("old-signature", "store/web/manifest.sig");
    expect(s, "web", RC_CORRUPT, "replayed manifest: it is that of another making");
    CHECK_OK(make(s, "web", "content", &err));
    CHECK_OK(make(s, "other", "content", &err));
    copy_file("store/other/manifest", "store/web/manifest");
    if (signer)
        copy_file("store/other/manifest.sig", "store/web/manifest.sig");
    expect(s, "web", RC_CORRUPT, "replayed manifest: it is that of checkpoint 'other'");
    CHECK_OK(store_delete(s, "web", &err));
    move_file("store/other", "store/web"); /* the whole checkpoint under another's name */
    expect(s, "web", RC_CORRUPT, "replayed manifest: it is that of checkpoint 'other'");
}

TEST(replayed_manifests_are_refused_when_encrypted)
{
    replay('a', NULL);
}

TEST(replayed_manifests_are_refused_when_signed)
{
    make_pair("signer");
    replay('\0', "signer");
}

TEST(a_signed_checkpoint_lends_no_pages_of_packs_that_nobody_vouches_for)
{
    struct err err = ERR_INIT;
    CLEANUP(vault_done) struct vault v = {.keys = NULL};
    make_pair("signer");
    open_vault('\0', "signer", NULL, &v);
    CLEANUP(store_freep) struct store *s = open_store(NULL);
    struct store_collected c;
    CHECK_OK(make(s, "one", "content", &err));
    CHECK_OK(make(s, "two", "content", &err));
    CHECK_OK(store_gc(s, true, &c, &err));
    CHECK_INT(c.kept, 1);
    store_use_vault(s, &v);
    CHECK_OK(make(s, "three", "content", &err));
    CHECK_OK(store_gc(s, true, &c, &err));
    CHECK_INT(c.kept, 2);
}

TEST(collection_needs_no_key)
{
    struct err err = ERR_INIT;
    CLEANUP(vault_done) struct vault v = {.keys = NULL};
    open_vault('a', NULL, NULL, &v);
    CLEANUP(store_freep) struct store *s = open_store(&v);
    struct store_collected c;
    CHECK_OK(make(s, "web", "content", &err));
    CHECK_OK(make(s, "gone", "quite different", &err));
    CHECK_OK(store_delete(s, "gone", &err));
    store_use_vault(s, NULL);
    CHECK_OK(store_gc(s, false, &c, &err));
    CHECK(c.kept == 1 && c.packs == 1);
    store_use_vault(s, &v);
    expect(s, "web", RC_OK, NULL);
}

TEST(a_crash_anywhere_leaves_the_old_or_the_new)
{
    struct err err = ERR_INIT;
    CLEANUP(vault_done) struct vault v = {.keys = NULL};
    make_pair("signer");
    open_vault('a', "signer", "signer.pub", &v);
    CLEANUP(store_freep) struct store *s = open_store(&v);
    CHECK_OK(make(s, "web", "content", &err));
    for (unsigned i = 0;; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            fault_arm(i, FAULT_CRASH);
            (void)!make(s, "web", "content", &err);
            fault_disarm();
            _exit(0);
        }
        int status = 0;
        CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
        expect(s, "web", RC_OK, NULL);
        if (WEXITSTATUS(status) == 0)
            break;
    }
}

TEST(what_is_required_and_cannot_be_had_is_an_error)
{
    struct err err = ERR_INIT;
    struct vault v;
    struct vault_options o = {.require = true};
    CHECK_RC(vault_open(&o, &v, &err), RC_INVALID);
    make_pair("signer");
    CLEANUP(mem_freep) char *signer = path_of("signer");
    CLEANUP(mem_freep) char *public = path_of("signer.pub");
    o = (struct vault_options){.trust_key = signer};
    CHECK_RC(vault_open(&o, &v, &err), RC_INVALID);
    o = (struct vault_options){.trust_key = "/no/such/file"};
    CHECK_RC(vault_open(&o, &v, &err), RC_NOT_FOUND);
    o = (struct vault_options){.sign_key = public};
    CHECK_RC(vault_open(&o, &v, &err), RC_DENIED); /* 0644 */
    CHECK(strstr(err.msg, "chmod 600"));
    CHECK(chmod(public, 0600) == 0);
    CHECK_RC(vault_open(&o, &v, &err), RC_INVALID);
    CLEANUP(mem_freep) char *dir = path_of("trusted");
    CHECK_OK(fs_mkdirs(dir, 0755, &err));
    o = (struct vault_options){.trust_key = dir};
    CHECK_RC(vault_open(&o, &v, &err), RC_INVALID); /* empty */
    copy_file("signer.pub", "trusted/one.pem");
    CHECK_OK(vault_open(&o, &v, &err));
    CHECK_INT(v.trust.n, 1);
    CHECK(!vault_is_empty(&v));
    vault_done(&v);
    CHECK(vault_is_empty(&v));
}

TEST(a_forgotten_key_is_an_error_where_others_are_encrypted)
{
    struct err err = ERR_INIT;
    CLEANUP(vault_done) struct vault v = {.keys = NULL};
    open_vault('a', NULL, NULL, &v);
    CLEANUP(store_freep) struct store *s = open_store(NULL);
    CHECK_OK(make(s, "before", "content", &err));
    store_use_vault(s, &v);
    CHECK_OK(make(s, "web", "content", &err));
    store_use_vault(s, NULL);
    CHECK_RC(make(s, "web", "content", &err), RC_DENIED);
    CHECK(strstr(err.msg, "--unencrypted"));
    store_allow_clear(s);
    CHECK_OK(make(s, "after", "content", &err));
    expect(s, "after", RC_OK, NULL);
    expect(s, "before", RC_OK, NULL);
}

TEST(a_directory_that_is_no_part_of_a_store_is_opened_with_the_keys_beside_it)
{
    struct err err = ERR_INIT;
    CLEANUP(vault_done) struct vault v = {.keys = NULL};
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    CLEANUP(mem_freep) char *path = path_of("store/web");
    make_pair("signer");
    open_vault('a', "signer", "signer.pub", &v);
    CLEANUP(store_freep) struct store *s = open_store(&v);
    CHECK_OK(make(s, "web", "content", &err));
    for (int marked = 0; marked < 2; marked++) {
        CLEANUP(fd_closep) int dir = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
        CHECK_OK(marked ? store_adopt(fd_steal(&dir), path, &v, &e, &err)
                        : store_adopt_unmarked(fd_steal(&dir), path, &v, &e, &err));
        CHECK_OK(store_verify(e, STORE_ALL, 1, NULL, &err));
        store_entry_freep(&e);
    }
    CLEANUP(mem_freep) char *renamed = path_of("store/embedded");
    CHECK(rename(path, renamed) == 0);
    CLEANUP(fd_closep) int dir = sys_openat(AT_FDCWD, renamed, O_RDONLY | O_DIRECTORY, 0);
    CHECK_OK(store_adopt_unmarked(fd_steal(&dir), renamed, &v, &e, &err)); /* under any name */
    CHECK_OK(store_entry_unlocked(e, &err));
}
