#include "wire.h"
#include <shoal/base/mem.h>

void wire_init(struct wire *w)
{
    *w = (struct wire){ .room = WIRE_ROOM_BYTES };
}

bool wire_has_room(struct wire *w, size_t waiting, int64_t now_ms)
{
    if (w->room > WIRE_ROOM_BYTES && now_ms - w->changed_ms >= WIRE_TRUST_MS) {
        w->room = MAX(w->room / 2, (size_t)WIRE_ROOM_BYTES);
        w->changed_ms = now_ms;
    }
    if (waiting < w->room) {
        w->full = false;
        return true;
    }
    if (!w->full || waiting < w->lowest) {
        w->full = true;
        w->lowest = waiting;
        w->lowest_ms = now_ms;
    }
    if (now_ms - w->lowest_ms < WIRE_STALL_MS)
        return false;
    w->full = false;
    w->room = MIN(waiting + WIRE_ROOM_BYTES, (size_t)WIRE_ROOM_MAX_BYTES);
    w->changed_ms = now_ms;
    return true;
}
