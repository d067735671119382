/* Formats: how nodes with older and newer programs work in one cluster while it is upgraded node by node.
 *
 * One number, Cluster.Format, says what the cluster writes: log entries, snapshots, backups, assignments, certificates, and
 * every field of the tables that has a .since. It is committed like any change, and only grows.
 *
 *   knows    A program knows the formats FORMAT_LEAST to FORMAT_MOST: it reads and writes each of them. A node tells so when
 *            it joins and in every HELLO; the leader commits it to the node table (Node.Formats), `shoal node inspect` shows it.
 *   promises What a node was is not what it will be: it may start with the older program again. So when all nodes know a later
 *            format, their assignments say so (FormatNext); each writes to its disk that it will not start with a program that
 *            does not know it, and then tells the leader. A promise is never taken back, so what the log says of it is true.
 *   raises   When every node has promised, the leader raises Cluster.Format (manager/format.c). The store refuses a raise, or
 *            a node, for which that does not hold (store/apply.c): no order of events brings a node into a cluster it cannot
 *            read. Nodes that have left do not count; a machine that is lost holds the raise up until it is removed.
 *
 * Until the first promise every node may go back to the older program; after the raise none can.
 *
 * A change of what is written is one line here (FORMAT_MOST grows by one) and
 *   a field            a row with .since = N. It is empty in every object until the cluster writes N, for a transaction that
 *                      holds it is refused by manager_propose() with the name of the object; what nodes say of
 *                      themselves is cut by rec_cut(). Code that fills it asks manager_format() or Assignment.Format.
 *   a limit, a choice  a wider .max or a new name of an ENUM is a change too: what is stored must keep to the old one before.
 *   a byte layout      (raft/message.c, wal.c, snapfile.c, gossip/seal.c have a number each.) Write the new one from format N
 *                      on, read both. None has changed yet.
 *
 * What is not known is never skipped in silence:
 *   log entry, snapshot   They begin with their format. Of a later one, or with a table, operation or tag that this program
 *                         does not know: a daemon that starts says so and ends before it does anything, one that runs stops
 *                         (abort()) before it applies it, and then does not start. To skip it would be another state here.
 *   membership.mp         holds the promise: looked at first, before anything is opened or written.
 *   backup                of a later format is refused.
 *   assignment            of a later format is not taken, and said in the log; containers run on as they are.
 *   HELLO, report, join   Unknown tags are skipped, and may be: they are a node's words about itself, said again and again;
 *                         the leader stores what it knows of them, and the rest once it is upgraded.
 *   raft message, segment, snapshot file, gossip packet   with another number or type is dropped, respectively damage: the
 *                         rules above are why a node that could not read it is not there. */
#ifndef SHOAL_MODEL_FORMAT_H
#define SHOAL_MODEL_FORMAT_H

#include <shoal/base/err.h>

enum { FORMAT_LEAST = 1 };
#ifdef FORMAT_NEXT /* a build of the tests alone: it knows one format more, and forgets that where a test wants the older program */
extern unsigned format_most;
#define FORMAT_MOST format_most
#else
#define FORMAT_MOST 1u
#endif

/* E_UNSUPPORTED and the sentence for the operator of this node, unless this program knows the format. */
int format_check(uint64_t format, struct err *e) must_check;

#endif
