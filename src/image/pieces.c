/* A blob in pieces from several sources: which piece is asked of whom, and which may be handed on. Pure; the bytes are the
 * shell's (ask_io.c), a buffer a slot. Pieces are handed on in order, so that whoever takes them hashes as they come and
 * can go on from where it stopped. IMAGE_WINDOW bounds what is under way or waits for an earlier piece. */
#include "image_internal.h"

void image_pieces_init(struct image_pieces *p, int64_t offset, int64_t size)
{
    ASSERT(offset >= 0 && offset <= size);
    *p = (struct image_pieces){ .size = size, .next = offset, .head = offset };
}

bool image_pieces_done(const struct image_pieces *p)
{
    return p->head == p->size;
}

static bool make_next(struct image_pieces *p)
{
    struct image_piece *x = &p->v[(p->first + p->n) % IMAGE_WINDOW];
    if (p->n == IMAGE_WINDOW || p->next == p->size)
        return false;
    *x = (struct image_piece){ .offset = p->next, .size = (uint32_t)MIN((int64_t)IMAGE_PIECE_SIZE, p->size - p->next),
                               .source = -1 };
    p->next += x->size;
    p->n++;
    return true;
}

int image_pieces_ask(struct image_pieces *p, int source)
{
    for (unsigned i = 0; i < p->n || make_next(p); i++) {
        unsigned slot = (p->first + i) % IMAGE_WINDOW;
        if (p->v[slot].source >= 0)
            continue;
        p->v[slot].source = source;
        return (int)slot;
    }
    return -1;
}

void image_pieces_got(struct image_pieces *p, int slot, uint32_t n)
{
    struct image_piece *x = &p->v[slot];
    ASSERT(x->source >= 0 && n <= x->size - x->got);
    x->got += n;
}

void image_pieces_lost(struct image_pieces *p, int source)
{
    for (unsigned i = 0; i < p->n; i++) {
        struct image_piece *x = &p->v[(p->first + i) % IMAGE_WINDOW];
        if (x->source == source && x->got < x->size) {
            x->source = -1;
            x->got = 0;
        }
    }
}

int image_pieces_take(struct image_pieces *p)
{
    struct image_piece *x = &p->v[p->first];
    if (!p->n || x->got < x->size)
        return -1;
    int slot = (int)p->first;
    ASSERT(x->offset == p->head);
    p->head += x->size;
    p->first = (p->first + 1) % IMAGE_WINDOW;
    p->n--;
    return slot;
}
