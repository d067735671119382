/* The record of a sandbox. */
#include <shoal/overlay.h>

REC_DEFINE(sandbox_link)
REC_DEFINE(sandbox)
