/* Constants of the protocol between launcher and worker. protocol.md explains them. */
#ifndef PROTOCOL_H
#define PROTOCOL_H

#define PROTOCOL_VERSION 1
#define MAGIC "PYCNI-WARM"
#define ACCEPTED 'A'
#define GO 'G'
#define STATUS 'S'
#define STOP 'T'
#define REFUSED 'R'
#define MAX_REQUEST (160 * 1024)

enum { STDIN, STDOUT, STDERR, FOLDER_FD, TOKEN_FD, FDS }; /* the descriptors of a GO message */

#endif
