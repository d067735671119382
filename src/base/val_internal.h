/* Shared by val.c and the parsers. */
#ifndef BASE_VAL_INTERNAL_H
#define BASE_VAL_INTERNAL_H

#include <shoal/base/mem.h>
#include <shoal/base/val.h>

enum { VAL_DEPTH_MAX = 64, VAL_DOC_MAX_BYTES = 256 << 20 };

size_t val_doc_size(const struct val_doc *d); /* arena bytes so far: parsers stop at VAL_DOC_MAX_BYTES */
void val_add_pair(struct val_doc *d, struct val *map, struct val *key, struct val *value);

#endif
