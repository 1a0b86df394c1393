/* What CRIU has found out about the machine, kept for those that come after it.
 *
 * Trying what the kernel can do takes CRIU longer than a small restore.  It keeps the outcome for
 * itself only where /run is a tmpfs; a CRIU of tools/get-criu (tools/criu/facts.c) does it in a
 * directory that we give it, under a name that holds for one boot, one program, one user namespace
 * and one set of capabilities.  Whether it is of a CRIU like itself, that one looks, too.
 *
 * Threads: safe.
 */
#pragma once

#define CR_FACTS_DIR "/run/chrek/criu"
#define CR_FACTS_ENV "CHREK_FACTS" /* "DESCRIPTOR:NAME" */
#define CR_FACTS_NAME 160

/* The directory, made if need be, and the name of the file in it, which need not be there yet.
 * criu     path of the program
 * returns  a descriptor, the caller's; -1: there is none to be had, so CRIU tries everything */
int cr_facts_open(const char *path, const char *criu, char out_name[CR_FACTS_NAME]);
