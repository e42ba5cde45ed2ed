/* What the files of the launcher share. */
#ifndef LAUNCHER_H
#define LAUNCHER_H

#define LISTEN_FD 3
#define FOLDER "/run/pycni/warm"

enum { NOBODY = -1, UNFIT = -2 }; /* in place of a connection: no server listens; none can be used */

#include <stdint.h>
#include <sys/types.h>

#define SERVER_NAME "pycni-server" /* PROCESS_NAME in cni/warm/server.py */

extern char **environ;
extern char socket_path[108];

/* launcher.c */
const char *build_id(void);
int run_bundle(char **argv); /* returns only when it could not, with an error object printed */

/* place.c */
int find_place(void);       /* sets socket_path; 0 when no server may live for us */
int may_start_server(void); /* notes the call elsewhere than on the host, where the second one starts a server */

/* patience.c */
uint64_t work_of_server(int pid);      /* time that it and its workers have run, 0 when it is not known */
void give_up(int pid, uint64_t work);  /* notes that a server has let a call wait in vain */
int is_given_up(void);                 /* whether calls do without it: it has not run since, or that was just now */

/* server.c */
int connect_to_server(void); /* gives a connection, NOBODY or UNFIT; never waits */
pid_t server_of(int fd);     /* who listens at the other end: the server, once it has started */
int start_server(void);      /* the same; waits for the lock at most some seconds */
int serve(void);             /* becomes the server, its socket is LISTEN_FD already */

#endif
