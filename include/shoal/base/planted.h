/* Bugs planted for the simulation of the control plane: it has to find each (tests/sim/planted). Only the builds of
 * sim_cluster_planted, sim_govern_planted and sim_whole_planted define CLUSTER_PLANTED; everywhere else CLUSTER_BUG is
 * the constant 0. */
#ifndef SHOAL_BASE_PLANTED_H
#define SHOAL_BASE_PLANTED_H

#ifdef CLUSTER_PLANTED
extern int cluster_bug;
#define CLUSTER_BUG cluster_bug
#else
#define CLUSTER_BUG 0
#endif

#endif
