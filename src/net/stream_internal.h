/* Between stream.c and the transports. */
#ifndef NET_STREAM_INTERNAL_H
#define NET_STREAM_INTERNAL_H

#include <shoal/stream.h>

void *stream_impl(struct stream *s);
void stream_set_uid(struct stream *s, int uid);

#endif
