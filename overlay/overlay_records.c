/* The records of a sandbox and of a trace. */
#include <shoal/overlay.h>

REC_DEFINE(sandbox_link)
REC_DEFINE(sandbox)
REC_DEFINE(trace_step)
REC_DEFINE(trace)
