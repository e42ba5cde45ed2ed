/* Authenticate the process at the other end of a connection: its rights must equal this process's. */
#ifndef PEER_H
#define PEER_H

#include <sys/types.h>

/* Read the properties of this process. Returns -1 if they cannot be read, or if a seccomp filter binds it. */
int peer_setup(void);

/* Return NULL if the process that connected equals this one, else the name of the first property that differs. */
const char *peer_difference(int connection, pid_t pid);

#endif
