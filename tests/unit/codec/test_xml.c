#include "base/buf.h"
#include "codec/xml.h"
#include "harness/test.h"

static enum rc note(void *arg, const char *path, const char *text, struct err *err)
{
    if (strcmp(text, "stop") == 0)
        return err_set(err, RC_CANCELLED, "enough");
    buf_addf(arg, "%s=%s;", path, text);
    return RC_OK;
}

static enum rc read_text(const char *text, struct buf *out, struct err *err)
{
    return xml_read("answer", text, strlen(text), note, out, err);
}

TEST(elements_are_told_with_their_place_and_text)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    CHECK_OK(read_text("<?xml version=\"1.0\"?>\n"
                       "<s:A xmlns:s='x'><B c='d'>1 &lt; 2&#x41;</B>\n<B/><C><D>x</D>y</C></s:A>",
                       &out, &err));
    CHECK_STR(buf_str(&out), "/A/B=1 < 2A;/A/B=;/A/C/D=x;/A/C=y;/A=\n;");
}

TEST(a_visit_may_end_the_reading)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    CHECK_RC(read_text("<a><b>1</b><b>stop</b><b>2</b></a>", &out, &err), RC_CANCELLED);
    CHECK_STR(buf_str(&out), "/a/b=1;");
}

TEST(what_is_no_xml_is_corrupt)
{
    static const char *const bad[] = {
        "",
        "{}",
        "<a>",
        "<a></b>",
        "<a>&nope;</a>",
        "<a/><b/>",
        "<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>",
        "<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><a>&x;</a>",
        "<a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a/>"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err err = ERR_INIT;
        CLEANUP(buf_done) struct buf out = BUF_INIT;
        CHECK_RC(read_text(bad[i], &out, &err), RC_CORRUPT);
        CHECK(strstr(err.msg, "answer: line "));
    }
}

TEST(long_texts_and_names_are_corrupt)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    buf_addf(&text, "<a>%0*d</a>", (int)XML_TEXT_MAX + 1, 0);
    CHECK_RC(read_text(buf_str(&text), &out, &err), RC_CORRUPT);
    buf_cut(&text, 0);
    buf_addf(&text, "<a%0600d/>", 0);
    CHECK_RC(read_text(buf_str(&text), &out, &err), RC_CORRUPT);
}
