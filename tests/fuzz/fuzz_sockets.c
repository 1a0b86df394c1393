/* /proc/net/tcp and tcp6. */
#include "container/sockets.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP(sockets_done) struct sockets s = {0};
    char text[SOCKETS_TEXT_MAX];
    (void)!sockets_parse((const char *)data, size, false, &s, NULL);
    (void)!sockets_parse((const char *)data, size, true, &s, NULL);
    for (size_t i = 0; i < s.n; i++) {
        sockets_address(&s.list[i].remote, s.list[i].remote_port, text);
        if (strlen(text) < 4 || (s.list[i].ino && !sockets_find(&s, s.list[i].ino)))
            abort();
        (void)sockets_peer(&s, &s.list[i]);
    }
    return 0;
}
