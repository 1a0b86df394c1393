/* What the two fake libraries share: the GPUs of the machine that they pretend.
 *
 * CHREK_FAKE_GPUS   GPUs, separated by ';': UUID,NAME,MIB[,mig]; default: one
 * CHREK_FAKE_DRIVER version, default 580.65.06; CUDA 13.0 from 580 on, 12.8 from 570 on, else 12.4
 * CHREK_FAKE_CUDA   faults, separated by ',': OPERATION=fail:CODE[:TIMES], =hang, =slow:MS; of the
 *                   process that asks, except `bad`, a process's own: its state fails for good
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define FAKE_GPUS 8
#define FAKE_UUID "GPU-00000000-1111-2222-3333-444444444444"

struct fake_gpu {
    unsigned long long bytes;
    char uuid[41], name[96];
    bool mig;
};

/* Returns how many. */
static inline int fake_gpus(struct fake_gpu out[FAKE_GPUS]);

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline int fake_gpus(struct fake_gpu out[FAKE_GPUS])
{
    const char *text = getenv("CHREK_FAKE_GPUS");
    int n = 0;
    for (text = text ? text : FAKE_UUID ",Fake GPU,8192"; *text && n < FAKE_GPUS;) {
        struct fake_gpu g = {.mig = false};
        char mig[8] = "";
        unsigned long long mib = 0;
        if (sscanf(text, "%40[^,],%95[^,],%llu,%7[a-z]", g.uuid, g.name, &mib, mig) < 3)
            break;
        g.bytes = mib << 20;
        g.mig = strcmp(mig, "mig") == 0;
        out[n++] = g;
        text += strcspn(text, ";");
        text += *text == ';';
    }
    return n;
}

static inline const char *fake_driver(void)
{
    const char *text = getenv("CHREK_FAKE_DRIVER");
    return text ? text : "580.65.06";
}
