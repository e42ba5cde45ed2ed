/* What the two files of the launcher share. */
#ifndef LAUNCHER_H
#define LAUNCHER_H

#define LISTEN_FD 3
#define FOLDER "/run/pycni/warm"

enum { NOBODY = -1, UNFIT = -2 }; /* in place of a connection: no server listens; none can be used */

extern char **environ;
extern char socket_path[108];

/* launcher.c */
const char *build_id(void);
int run_bundle(char **argv); /* returns only when it could not, with an error object printed */

/* server.c */
int find_place(void);        /* sets socket_path; 0 when no server may live for us */
int connect_to_server(void); /* gives a connection, NOBODY or UNFIT; never waits */
int start_server(void);      /* the same; waits for the lock at most some seconds */
int serve(void);             /* becomes the server, its socket is LISTEN_FD already */

#endif
