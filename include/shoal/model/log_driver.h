/* Log drivers: where the output of a container goes, as services and single containers ask for it. The one description of
 * their options and of the words of a tag; what is read here is known to be good when the container is made. */
#ifndef SHOAL_MODEL_LOG_DRIVER_H
#define SHOAL_MODEL_LOG_DRIVER_H

#include <shoal/base/sb.h>
#include <shoal/model/rec.h>

struct log_driver {
    bool journal;                 /* journald, beside a file of ours */
    int64_t max_bytes, max_files; /* of the file; 0: not asked for */
};
/* NAME: json-file (also NULL and ""; and local, which is the same here) with max-size and max-file; journald with tag, labels
 * and env. -E_UNSUPPORTED, -E_INVALID, -E_TOO_BIG: named after WHERE. */
int log_driver_read(struct log_driver *ret, const char *name, const struct labels *options, const char *where, struct err *e) must_check;

/* What the words of a tag stand for; NULL: nothing. */
struct log_tag_values { const char *id, *name, *image, *image_id; };
/* TEXT with its {{.ID}}, {{.Name}} and so on put in. -E_UNSUPPORTED. */
int log_tag(const char *text, const struct log_tag_values *v, struct sb *out, struct err *e) must_check;

#endif
