/* Whether the process at the other end of a connection may do no less than this one. */
#ifndef PEER_H
#define PEER_H

#include <sys/types.h>

/* Read what this process is. Returns -1 where that cannot be read, or where a filter of seccomp binds it. */
int peer_begin(void);

/* Return NULL when the process that connected is equal to this one; else what is different about it. */
const char *peer_difference(int connection, pid_t pid);

#endif
