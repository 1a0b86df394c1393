#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "harness/test.h"
#include "kube/config.h"

#include <fcntl.h>

static char *write_file(const char *name, const char *text)
{
    struct err err = ERR_INIT;
    char *path = mem_asprintf("%s/%s", test_dir(), name);
    CHECK_OK(fs_write_whole(AT_FDCWD, path, text, strlen(text), 0600, &err));
    return path;
}

static const char two[] = "apiVersion: v1\n"
                          "kind: Config\n"
                          "current-context: a\n"
                          "contexts:\n"
                          "- name: a\n"
                          "  context: {cluster: one, user: me, namespace: mine}\n"
                          "- name: b\n"
                          "  context: {cluster: two, user: file}\n"
                          "- name: c\n"
                          "  context: {cluster: gone, user: me}\n"
                          "- name: d\n"
                          "  context: {cluster: one, user: plugin}\n"
                          "- name: f\n"
                          "  context: {cluster: one, user: basic}\n"
                          "- name: e\n"
                          "  context: {cluster: open, user: me}\n"
                          "clusters:\n"
                          "- name: one\n"
                          "  cluster: {server: 'https://1.2.3.4:6443/', "
                          "certificate-authority-data: Y2E=}\n"
                          "- name: two\n"
                          "  cluster: {server: http://localhost:8001, certificate-authority: ca}\n"
                          "- name: open\n"
                          "  cluster: {server: https://x, insecure-skip-tls-verify: true}\n"
                          "users:\n"
                          "- name: me\n"
                          "  user: {client-certificate-data: Y2VydA==, client-key-data: a2V5}\n"
                          "- name: file\n"
                          "  user: {token: unused, tokenFile: token}\n"
                          "- name: plugin\n"
                          "  user: {exec: {command: bin/login, apiVersion: "
                          "client.authentication.k8s.io/v1, args: [a, 'b c'], env: [{name: N, "
                          "value: v}]}}\n"
                          "- name: basic\n"
                          "  user: {username: me}\n";

TEST(a_context_leads_to_a_server_and_a_user)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *path = write_file("config", two);
    CLEANUP(kube_config_done) struct kube_config c = {.server = NULL};
    CHECK_OK(kube_config_read(path, NULL, &c, &err));
    CHECK_STR(c.server, "https://1.2.3.4:6443");
    CHECK_STR(c.ca_pem, "ca");
    CHECK_STR(c.cert_pem, "cert");
    CHECK_STR(c.key_pem, "key");
    CHECK_STR(c.name_space, "mine");
    CHECK(!c.token && !c.token_file);
}

TEST(files_are_looked_for_beside_the_kubeconfig)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *path = write_file("config", two);
    CLEANUP(mem_freep) char *ca = write_file("ca", "the ca");
    CLEANUP(mem_freep) char *want = mem_asprintf("%s/token", test_dir());
    CLEANUP(kube_config_done) struct kube_config c = {.server = NULL};
    CHECK_OK(kube_config_read(path, "b", &c, &err));
    CHECK_STR(c.server, "http://localhost:8001");
    CHECK_STR(c.ca_pem, "the ca");
    CHECK_STR(c.token_file, want);
    CHECK_STR(c.name_space, "default");
    CHECK(!c.token && !c.cert_pem);
}

TEST(what_cannot_be_used_is_said)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *path = write_file("config", two);
    CLEANUP(mem_freep) char *bad = write_file("bad", "a: [");
    struct kube_config c;
    CHECK_RC(kube_config_read("/nowhere", NULL, &c, &err), RC_NOT_FOUND);
    CHECK_RC(kube_config_read(bad, NULL, &c, &err), RC_CORRUPT);
    CHECK_RC(kube_config_read(path, "nobody", &c, &err), RC_NOT_FOUND);
    CHECK_RC(kube_config_read(path, "c", &c, &err), RC_NOT_FOUND);
    CHECK(strstr(err.msg, "no cluster 'gone'"));
    CHECK_RC(kube_config_read(path, "b", &c, &err), RC_NOT_FOUND); /* its ca is not there */
    CHECK_RC(kube_config_read(path, "f", &c, &err), RC_UNSUPPORTED);
    CHECK(strstr(err.msg, "'username'"));
    CHECK_RC(kube_config_read(path, "e", &c, &err), RC_UNSUPPORTED);
}

TEST(a_pod_has_what_it_needs_in_a_directory)
{
    struct err err = ERR_INIT;
    struct kube_config none;
    CLEANUP(mem_freep) char *token = mem_asprintf("%s/token", test_dir());
    CHECK_RC(kube_config_in_cluster(test_dir(), NULL, NULL, &none, &err), RC_NOT_FOUND);
    CHECK_RC(kube_config_in_cluster(test_dir(), "10.0.0.1", "443", &none, &err), RC_NOT_FOUND);
    CLEANUP(mem_freep) char *ca = write_file("ca.crt", "the ca");
    CLEANUP(mem_freep) char *name_space = write_file("namespace", "agents");
    CLEANUP(kube_config_done) struct kube_config c = {.server = NULL};
    CHECK_OK(kube_config_in_cluster(test_dir(), "10.0.0.1", "443", &c, &err));
    CHECK_STR(c.server, "https://10.0.0.1:443");
    CHECK_STR(c.ca_pem, "the ca");
    CHECK_STR(c.name_space, "agents");
    CHECK_STR(c.token_file, token);
    CLEANUP(kube_config_done) struct kube_config v6 = {.server = NULL};
    CHECK_OK(kube_config_in_cluster(test_dir(), "fd00::1", "443", &v6, &err));
    CHECK_STR(v6.server, "https://[fd00::1]:443");
}

TEST(a_program_may_log_in)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *path = write_file("config", two);
    CLEANUP(mem_freep) char *want = mem_asprintf("%s/bin/login", test_dir());
    CLEANUP(kube_config_done) struct kube_config c = {.server = NULL};
    CHECK_OK(kube_config_read(path, "d", &c, &err));
    CHECK_STR(c.exec_argv[0], want);
    CHECK_STR(c.exec_argv[1], "a");
    CHECK_STR(c.exec_argv[2], "b c");
    CHECK(!c.exec_argv[3]);
    CHECK_STR(c.exec_env[0], "N=v");
    CHECK_STR(c.exec_version, "client.authentication.k8s.io/v1");
}
