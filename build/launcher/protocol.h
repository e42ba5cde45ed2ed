/* What launcher and worker agree on; protocol.md says what it means. */
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

enum { STDIN, STDOUT, STDERR, FOLDER_FD, RIGHT, FDS }; /* the descriptors that come with GO */

#endif
