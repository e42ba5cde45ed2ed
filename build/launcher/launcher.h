/* Declarations that the launcher's files share. */
#ifndef LAUNCHER_H
#define LAUNCHER_H

#define LISTEN_FD 3
#define FOLDER "/run/pycni/warm"

enum { NO_SERVER = -1, UNUSABLE = -2 }; /* in place of a connection: no server listens; no server can be used */

#include <stdint.h>
#include <sys/types.h>

#define SERVER_NAME "pycni-server" /* PROCESS_NAME in cni/warm/server.py */

extern char **environ;
extern char socket_path[108];

/* launcher.c */
const char *build_id(void);
int exec_bundle(char **argv); /* returns only if exec fails, after it has printed an error object */

/* server_key.c */
int find_socket(void);      /* sets socket_path; returns 0 if no server may serve this caller */
int may_start_server(void); /* outside the host's namespaces it records the call: the second call starts a server */

/* unresponsive.c */
uint64_t cpu_time_of_server(int pid);                /* of the server and its workers; 0 if unknown */
void mark_unresponsive(int pid, uint64_t cpu_time); /* records that a server did not accept a call in time */
int is_marked_unresponsive(void);                    /* returns whether calls must run without the server for now */

/* server.c */
int connect_to_server(void); /* returns a connection, NO_SERVER or UNUSABLE; never waits */
pid_t server_of(int fd);     /* returns the process ID of the listener: the server, once it has started */
int start_server(void);      /* returns as connect_to_server does; waits up to 4 s for the lock */
int exec_server(void);       /* becomes the server, whose socket is LISTEN_FD already */

#endif
