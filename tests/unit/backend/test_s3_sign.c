#include "backend/s3_sign.h"
#include "harness/test.h"

static const char nothing[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/* The examples of Amazon's documentation of Signature Version 4 for S3. */
static struct s3_signing example(void)
{
    return (struct s3_signing){.access = "AKIAIOSFODNN7EXAMPLE",
                               .secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                               .region = "us-east-1",
                               .service = "s3",
                               .date = "20130524T000000Z",
                               .method = "GET",
                               .path = "/",
                               .query = "",
                               .payload = nothing};
}

TEST(a_ranged_get_as_in_the_documentation)
{
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    const struct s3_header headers[] = {{"host", "examplebucket.s3.amazonaws.com"},
                                        {"range", "bytes=0-9"},
                                        {"x-amz-content-sha256", nothing},
                                        {"x-amz-date", "20130524T000000Z"}};
    struct s3_signing s = example();
    s.path = "/test.txt";
    s.headers = headers;
    s.n_headers = ARRAY_LEN(headers);
    s3_sign(&s, &out);
    CHECK_STR(buf_str(&out),
              "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
              "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"
              "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

TEST(a_listing_as_in_the_documentation)
{
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    const struct s3_header headers[] = {{"host", "examplebucket.s3.amazonaws.com"},
                                        {"x-amz-content-sha256", nothing},
                                        {"x-amz-date", "20130524T000000Z"}};
    struct s3_signing s = example();
    s.query = "max-keys=2&prefix=J";
    s.headers = headers;
    s.n_headers = ARRAY_LEN(headers);
    s3_sign(&s, &out);
    CHECK(strstr(buf_str(&out),
                 "Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"));
}

TEST(a_date_is_in_utc)
{
    char text[S3_DATE_LEN + 1];
    s3_date(1369353600, text);
    CHECK_STR(text, "20130524T000000Z");
}
