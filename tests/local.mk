# One program a test. A unit test links its own folder and lower floors only, so an upward call fails to link.
# Sources are automake's default: NAME.c. What needs root is built by `make check` and run by tests/run.d.
f0_libs = libbase.a $(ALL_LIBS)
f1_libs = libnet.a libmodel.a $(f0_libs)
f2_libs = libgossip.a libraft.a liboverlay.a libstore.a libimage.a libruntime.a libstack.a $(f1_libs)
f3_libs = libscheduler.a liborchestrator.a $(f2_libs)
f4_libs = libmanager.a libagent.a $(f3_libs)
f5_libs = libapi.a $(f4_libs)

# ---- unit ----
unit_tests =
if HAVE_CMOCKA
unit_tests += tests/unit/test_agent_task_spec
tests_unit_test_agent_task_spec_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/agent
tests_unit_test_agent_task_spec_LDADD = libagent.a $(CMOCKA_LIBS) $(f2_libs)
unit_tests += tests/unit/test_backup
tests_unit_test_backup_LDADD = libmodel.a $(CMOCKA_LIBS) $(f0_libs)
unit_tests += tests/unit/test_base_gcm
tests_unit_test_base_gcm_LDADD = $(CMOCKA_LIBS) $(f0_libs)
unit_tests += tests/unit/test_base_library
tests_unit_test_base_library_LDADD = $(CMOCKA_LIBS) $(f0_libs)
unit_tests += tests/unit/test_cli_commands
tests_unit_test_cli_commands_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/cli
tests_unit_test_cli_commands_LDADD = libcli.a $(CMOCKA_LIBS) $(f5_libs)
unit_tests += tests/unit/test_cli_parse
tests_unit_test_cli_parse_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/cli
tests_unit_test_cli_parse_LDADD = libcli.a $(CMOCKA_LIBS) $(f5_libs)
unit_tests += tests/unit/test_cli_service
tests_unit_test_cli_service_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/cli
tests_unit_test_cli_service_LDADD = libcli.a $(CMOCKA_LIBS) $(f5_libs)
unit_tests += tests/unit/test_cli_table
tests_unit_test_cli_table_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/cli
tests_unit_test_cli_table_LDADD = libcli.a $(CMOCKA_LIBS) $(f5_libs)
unit_tests += tests/unit/test_gossip_core
tests_unit_test_gossip_core_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/membership/gossip
tests_unit_test_gossip_core_LDADD = libgossip.a $(CMOCKA_LIBS) $(f1_libs)
unit_tests += tests/unit/test_gossip_io
tests_unit_test_gossip_io_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/membership/gossip
tests_unit_test_gossip_io_LDADD = libgossip.a $(CMOCKA_LIBS) $(f1_libs)
unit_tests += tests/unit/test_govern
tests_unit_test_govern_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/manager
tests_unit_test_govern_LDADD = libmanager.a $(CMOCKA_LIBS) $(f3_libs)
unit_tests += tests/unit/test_image_load
tests_unit_test_image_load_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/image
tests_unit_test_image_load_LDADD = libimage.a $(CMOCKA_LIBS) $(f1_libs) $(ARCHIVE_LIBS)
unit_tests += tests/unit/test_image_peers
tests_unit_test_image_peers_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/image
tests_unit_test_image_peers_LDADD = libimage.a $(CMOCKA_LIBS) $(f1_libs)
unit_tests += tests/unit/test_image_pull
tests_unit_test_image_pull_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/image
tests_unit_test_image_pull_LDADD = libimage.a $(CMOCKA_LIBS) $(f1_libs) $(ARCHIVE_LIBS)
unit_tests += tests/unit/test_image_ref
tests_unit_test_image_ref_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/image
tests_unit_test_image_ref_LDADD = libimage.a $(CMOCKA_LIBS) $(f1_libs)
unit_tests += tests/unit/test_linear
tests_unit_test_linear_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/tests/linear
tests_unit_test_linear_LDADD = liblinear.a $(CMOCKA_LIBS) $(f0_libs)
unit_tests += tests/unit/test_model_rec
tests_unit_test_model_rec_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/model
tests_unit_test_model_rec_LDADD = libmodel.a $(CMOCKA_LIBS) $(f0_libs)
unit_tests += tests/unit/test_net_link
tests_unit_test_net_link_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/net
tests_unit_test_net_link_LDADD = libnet.a $(CMOCKA_LIBS) $(f0_libs)
unit_tests += tests/unit/test_net_noise
tests_unit_test_net_noise_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/net
tests_unit_test_net_noise_LDADD = libnet.a $(CMOCKA_LIBS) $(f0_libs)
unit_tests += tests/unit/test_overlay_fair
tests_unit_test_overlay_fair_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/overlay
tests_unit_test_overlay_fair_LDADD = liboverlay.a $(CMOCKA_LIBS) $(f1_libs)
unit_tests += tests/unit/test_overlay_offload
tests_unit_test_overlay_offload_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/overlay
tests_unit_test_overlay_offload_LDADD = liboverlay.a $(CMOCKA_LIBS) $(f1_libs)
unit_tests += tests/unit/test_overlay_peer
tests_unit_test_overlay_peer_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/overlay
tests_unit_test_overlay_peer_LDADD = liboverlay.a $(CMOCKA_LIBS) $(f1_libs)
unit_tests += tests/unit/test_overlay_plan
tests_unit_test_overlay_plan_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/overlay
tests_unit_test_overlay_plan_LDADD = liboverlay.a $(CMOCKA_LIBS) $(f1_libs)
unit_tests += tests/unit/test_overlay_dns
tests_unit_test_overlay_dns_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/overlay
tests_unit_test_overlay_dns_LDADD = liboverlay.a $(CMOCKA_LIBS) $(f1_libs)
unit_tests += tests/unit/test_overlay_replay
tests_unit_test_overlay_replay_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/overlay
tests_unit_test_overlay_replay_LDADD = liboverlay.a $(CMOCKA_LIBS) $(f1_libs)
unit_tests += tests/unit/test_overlay_tunnel_client
tests_unit_test_overlay_tunnel_client_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/overlay
tests_unit_test_overlay_tunnel_client_LDADD = liboverlay.a $(CMOCKA_LIBS) $(f1_libs)
unit_tests += tests/unit/test_overlay_trace
tests_unit_test_overlay_trace_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/overlay
tests_unit_test_overlay_trace_LDADD = liboverlay.a $(CMOCKA_LIBS) $(f1_libs)
unit_tests += tests/unit/test_overlay_vxlan
tests_unit_test_overlay_vxlan_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/overlay
tests_unit_test_overlay_vxlan_LDADD = liboverlay.a $(CMOCKA_LIBS) $(f1_libs)
unit_tests += tests/unit/test_overlay_wire
tests_unit_test_overlay_wire_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/overlay
tests_unit_test_overlay_wire_LDADD = liboverlay.a $(CMOCKA_LIBS) $(f1_libs)
unit_tests += tests/unit/test_raft_disk
tests_unit_test_raft_disk_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/membership/raft
tests_unit_test_raft_disk_LDADD = libraft.a $(CMOCKA_LIBS) $(f1_libs)
unit_tests += tests/unit/test_raft_patience
tests_unit_test_raft_patience_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/membership/raft
tests_unit_test_raft_patience_LDADD = libraft.a $(CMOCKA_LIBS) $(f1_libs)
unit_tests += tests/unit/test_raft_repair
tests_unit_test_raft_repair_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/membership/raft
tests_unit_test_raft_repair_LDADD = libraft.a $(CMOCKA_LIBS) $(f1_libs)
unit_tests += tests/unit/test_raft_node
tests_unit_test_raft_node_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/membership/raft
tests_unit_test_raft_node_LDADD = libraft.a $(CMOCKA_LIBS) $(f1_libs)
unit_tests += tests/unit/test_runtime_log
tests_unit_test_runtime_log_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/runtime
tests_unit_test_runtime_log_LDADD = libruntime.a $(CMOCKA_LIBS) $(f1_libs)
unit_tests += tests/unit/test_runtime_seccomp
tests_unit_test_runtime_seccomp_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/runtime
tests_unit_test_runtime_seccomp_LDADD = libruntime.a $(CMOCKA_LIBS) $(f1_libs)
unit_tests += tests/unit/test_stack_convert
tests_unit_test_stack_convert_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/stack
tests_unit_test_stack_convert_LDADD = libstack.a $(CMOCKA_LIBS) $(f1_libs)
unit_tests += tests/unit/test_stack_errors
tests_unit_test_stack_errors_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/stack
tests_unit_test_stack_errors_LDADD = libstack.a $(CMOCKA_LIBS) $(f1_libs)
unit_tests += tests/unit/test_stack_interpolate
tests_unit_test_stack_interpolate_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/stack
tests_unit_test_stack_interpolate_LDADD = libstack.a $(CMOCKA_LIBS) $(f1_libs)
unit_tests += tests/unit/test_stack_spec
tests_unit_test_stack_spec_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/stack
tests_unit_test_stack_spec_LDADD = libstack.a $(CMOCKA_LIBS) $(f1_libs)
unit_tests += tests/unit/test_orchestrator
tests_unit_test_orchestrator_LDADD = $(CMOCKA_LIBS) $(f3_libs)
unit_tests += tests/unit/test_store
tests_unit_test_store_LDADD = $(CMOCKA_LIBS) $(f3_libs)
unit_tests += tests/unit/test_format
tests_unit_test_format_SOURCES = tests/unit/test_format.c $(libstore_a_SOURCES) $(libmodel_a_SOURCES)
tests_unit_test_format_CPPFLAGS = $(AM_CPPFLAGS) -DFORMAT_NEXT
tests_unit_test_format_LDADD = $(CMOCKA_LIBS) $(f0_libs)
unit_tests += tests/unit/test_manager
tests_unit_test_manager_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/manager
tests_unit_test_manager_LDADD = libmanager.a $(CMOCKA_LIBS) $(f3_libs)
unit_tests += tests/unit/test_manager_keys
tests_unit_test_manager_keys_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/manager
tests_unit_test_manager_keys_LDADD = libmanager.a $(CMOCKA_LIBS) $(f3_libs)
unit_tests += tests/unit/test_manager_table
tests_unit_test_manager_table_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/manager
tests_unit_test_manager_table_LDADD = libmanager.a $(CMOCKA_LIBS) $(f3_libs)
unit_tests += tests/unit/test_node_authority
tests_unit_test_node_authority_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/node
tests_unit_test_node_authority_LDADD = libnode.a $(CMOCKA_LIBS) $(f5_libs)
unit_tests += tests/unit/test_node_joiner
tests_unit_test_node_joiner_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/node
tests_unit_test_node_joiner_LDADD = libnode.a $(CMOCKA_LIBS) $(f5_libs)
unit_tests += tests/unit/test_node_disk
tests_unit_test_node_disk_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/node
tests_unit_test_node_disk_LDADD = libnode.a $(CMOCKA_LIBS) $(f5_libs)

check_PROGRAMS += tests/net/test_runtime
tests_net_test_runtime_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/runtime
tests_net_test_runtime_LDADD = libruntime.a $(CMOCKA_LIBS) $(f1_libs)
check_PROGRAMS += tests/net/test_runtime_io
tests_net_test_runtime_io_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/runtime
tests_net_test_runtime_io_LDADD = libruntime.a $(CMOCKA_LIBS) $(f1_libs)
check_PROGRAMS += tests/net/test_runtime_journal
tests_net_test_runtime_journal_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/runtime
tests_net_test_runtime_journal_LDADD = libruntime.a $(CMOCKA_LIBS) $(f1_libs)
check_PROGRAMS += tests/net/test_runtime_security
tests_net_test_runtime_security_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/runtime
tests_net_test_runtime_security_LDADD = libruntime.a $(CMOCKA_LIBS) $(f1_libs)
endif

# ---- real system, root: programs of tests/run.d ----
check_PROGRAMS += tests/net/test_runtime_faults
tests_net_test_runtime_faults_LDADD = $(f0_libs)
check_PROGRAMS += tests/net/hostile
tests_net_hostile_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/node -I$(srcdir)/membership/raft
tests_net_hostile_LDADD = libnode.a $(f5_libs)
check_PROGRAMS += tests/net/tunnel_driver
tests_net_tunnel_driver_LDADD = liboverlay.a $(f1_libs)

# The whole program once more, with one format more (model/format.h): tests/run.d/63-upgrade makes it.
EXTRA_PROGRAMS = tests/net/shoal_next
tests_net_shoal_next_SOURCES = $(shoal_SOURCES) $(libnode_a_SOURCES) $(libcli_a_SOURCES) $(libapi_a_SOURCES) $(libmanager_a_SOURCES) \
	$(libagent_a_SOURCES) $(libscheduler_a_SOURCES) $(liborchestrator_a_SOURCES) $(liboverlay_a_SOURCES) $(libstore_a_SOURCES) \
	$(libimage_a_SOURCES) $(libruntime_a_SOURCES) $(libstack_a_SOURCES) $(libmodel_a_SOURCES)
tests_net_shoal_next_CPPFLAGS = $(AM_CPPFLAGS) -DFORMAT_NEXT
tests_net_shoal_next_LDADD = libgossip.a libraft.a libnet.a libbase.a $(ALL_LIBS)
CLEANFILES += $(EXTRA_PROGRAMS)
src/runtime/tests_net_shoal_next-shim_image.$(OBJEXT): shoal-shim$(EXEEXT)

# ---- histories of clients: the judge, a program that judges files ----
check_LIBRARIES = liblinear.a
liblinear_a_SOURCES = tests/linear/history.c tests/linear/linear.c tests/linear/linear_index.c tests/linear/linear.h
check_PROGRAMS += tests/linear/check
tests_linear_check_LDADD = liblinear.a $(f0_libs)
check_PROGRAMS += tests/linear/clients
tests_linear_clients_LDADD = $(f1_libs)
check_PROGRAMS += tests/bench/load
tests_bench_load_LDADD = $(f1_libs)
check_PROGRAMS += tests/bench/joiners
tests_bench_joiners_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/node
tests_bench_joiners_LDADD = libnode.a libgossip.a $(f5_libs)

# ---- simulations ----
simulations = tests/sim/sim_cluster tests/sim/sim_gossip tests/sim/sim_raft tests/sim/sim_govern tests/sim/sim_whole
seeds = tests/sim/seeds.c tests/sim/seeds.h tests/sim/shrink.c tests/sim/shrink.h
tests_sim_sim_cluster_SOURCES = tests/sim/sim_cluster.c tests/sim/control_checks.c tests/sim/control_checks.h \
	tests/sim/queue.c tests/sim/queue.h $(seeds)
tests_sim_sim_cluster_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/agent -I$(srcdir)/src/manager -I$(srcdir)/tests/sim
tests_sim_sim_cluster_LDADD = $(f4_libs)
tests_sim_sim_govern_SOURCES = tests/sim/sim_govern.c $(seeds)
tests_sim_sim_govern_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/manager
tests_sim_sim_govern_LDADD = libmanager.a $(f3_libs)
tests_sim_sim_gossip_SOURCES = tests/sim/sim_gossip.c tests/sim/gossip_world.c tests/sim/gossip_world.h $(seeds)
tests_sim_sim_gossip_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/membership/gossip -I$(srcdir)/tests/sim
tests_sim_sim_gossip_LDADD = libgossip.a $(f1_libs)
# Raft: the production files with their system calls led to a disk in memory, under the simulation.
raft_sim = $(libraft_a_SOURCES:membership/raft/raft_io.c=tests/sim/raft_shell.c)
check_LIBRARIES += libraft_sim.a libraft_sim_planted.a
libraft_sim_a_SOURCES = $(raft_sim)
libraft_sim_a_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/membership/raft -DSIM_DISK -include $(srcdir)/tests/sim/disk.h
tests_sim_sim_raft_SOURCES = tests/sim/disk.c tests/sim/disk.h tests/sim/raft_checks.c tests/sim/raft_clients.c \
	tests/sim/raft_cluster.c tests/sim/raft_faults.c tests/sim/raft_network.c tests/sim/sim_raft.c \
	tests/sim/sim_raft.h $(seeds)
tests_sim_sim_raft_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/membership/raft
tests_sim_sim_raft_LDADD = libraft_sim.a $(f1_libs)

# The whole cluster: the daemons' own code over simulated machines.
check_LIBRARIES += libwhole.a
libwhole_a_SOURCES = $(libraft_a_SOURCES)
libwhole_a_CPPFLAGS = $(libraft_sim_a_CPPFLAGS) -include $(srcdir)/tests/sim/whole_threads.h
check_LIBRARIES += libwhole_calls.a
libwhole_calls_a_SOURCES = $(libgossip_a_SOURCES) overlay/address.c overlay/plan.c overlay/plan_index.c overlay/rules.c \
	overlay/overlay_internal.h overlay/rules.h src/agent/agent.c src/agent/agent_internal.h src/agent/report.c \
	src/agent/session.c src/agent/task.c src/agent/worker.c src/net/late_file_io.c src/net/link.c src/net/noise.c src/net/stream.c src/node/admission.c src/node/joiner.c \
	src/node/authority.c src/node/identity_io.c src/node/lock.c src/node/member.c src/node/peers.c src/node/relay.c \
	$(libmanager_a_SOURCES) $(liborchestrator_a_SOURCES) $(libscheduler_a_SOURCES) $(libstore_a_SOURCES) $(libmodel_a_SOURCES)
# All that sees the tables knows one format more (model/format.h); hosts start with the older program and with the newer.
libwhole_calls_a_CPPFLAGS = $(AM_CPPFLAGS) -DFORMAT_NEXT -I$(srcdir)/membership/gossip -I$(srcdir)/membership/raft -I$(srcdir)/overlay -I$(srcdir)/src/agent \
	-I$(srcdir)/src/node -I$(srcdir)/src/net -include $(srcdir)/tests/sim/whole_calls.h
tests_sim_sim_whole_SOURCES = tests/sim/control_checks.c tests/sim/control_checks.h tests/sim/disk.c tests/sim/disk.h \
	tests/sim/queue.c tests/sim/queue.h tests/sim/sim_whole.c tests/sim/whole.h tests/sim/whole_calls.h tests/sim/whole_checks.c tests/sim/whole_files.c \
	tests/sim/whole_host.c tests/sim/whole_loop.c tests/sim/whole_net.c tests/sim/whole_threads.h \
	tests/sim/whole_clients.c tests/sim/whole_disks.c tests/sim/whole_users.c $(seeds)
tests_sim_sim_whole_CPPFLAGS = $(AM_CPPFLAGS) -DFORMAT_NEXT -I$(srcdir)/overlay -I$(srcdir)/src/manager -I$(srcdir)/src/node \
	-I$(srcdir)/tests/sim -I$(srcdir)/tests/linear
tests_sim_sim_whole_LDADD = libwhole_calls.a libwhole.a libwhole_calls.a liblinear.a $(f0_libs)

# The same with bugs planted in the core; tests/sim/planted sees that each is found.
planted = tests/sim/sim_cluster_planted tests/sim/sim_gossip_planted tests/sim/sim_govern_planted tests/sim/sim_raft_planted \
	tests/sim/sim_whole_planted
tests_sim_sim_cluster_planted_SOURCES = $(tests_sim_sim_cluster_SOURCES) $(liborchestrator_a_SOURCES) $(libscheduler_a_SOURCES) \
	$(libstore_a_SOURCES) src/agent/task.c src/manager/allocator.c
tests_sim_sim_cluster_planted_CPPFLAGS = $(tests_sim_sim_cluster_CPPFLAGS) -DCLUSTER_PLANTED
tests_sim_sim_cluster_planted_LDADD = $(f4_libs)
tests_sim_sim_gossip_planted_SOURCES = $(tests_sim_sim_gossip_SOURCES) $(libgossip_a_SOURCES)
tests_sim_sim_gossip_planted_CPPFLAGS = $(tests_sim_sim_gossip_CPPFLAGS) -DGOSSIP_PLANTED
tests_sim_sim_gossip_planted_LDADD = $(f1_libs)
tests_sim_sim_govern_planted_SOURCES = $(tests_sim_sim_govern_SOURCES) src/manager/govern.c
tests_sim_sim_govern_planted_CPPFLAGS = $(tests_sim_sim_govern_CPPFLAGS) -DCLUSTER_PLANTED
tests_sim_sim_govern_planted_LDADD = $(tests_sim_sim_govern_LDADD)
check_LIBRARIES += libwhole_planted.a
libwhole_planted_a_SOURCES = $(libwhole_calls_a_SOURCES)
libwhole_planted_a_CPPFLAGS = $(libwhole_calls_a_CPPFLAGS) -DCLUSTER_PLANTED
tests_sim_sim_whole_planted_SOURCES = $(tests_sim_sim_whole_SOURCES)
tests_sim_sim_whole_planted_CPPFLAGS = $(tests_sim_sim_whole_CPPFLAGS) -DCLUSTER_PLANTED
tests_sim_sim_whole_planted_LDADD = libwhole_planted.a libwhole.a libwhole_planted.a liblinear.a $(f0_libs)
libraft_sim_planted_a_SOURCES = $(raft_sim)
libraft_sim_planted_a_CPPFLAGS = $(libraft_sim_a_CPPFLAGS) -DRAFT_PLANTED
tests_sim_sim_raft_planted_SOURCES = $(tests_sim_sim_raft_SOURCES)
tests_sim_sim_raft_planted_CPPFLAGS = $(tests_sim_sim_raft_CPPFLAGS) -DRAFT_PLANTED
tests_sim_sim_raft_planted_LDADD = libraft_sim_planted.a $(f1_libs)

# ---- fuzzers: LLVMFuzzerTestOneInput() and, here, a main that feeds it a bounded number of inputs ----
check_LIBRARIES += libreplay.a
libreplay_a_SOURCES = tests/fuzz/replay.c tests/fuzz/fuzz.h
if FUZZING
fuzz_main = $(LIBFUZZER)
else
fuzz_main = libreplay.a
endif
fuzzers =
fuzzers += tests/fuzz/fuzz_backup
tests_fuzz_fuzz_backup_LDADD = $(fuzz_main) libmodel.a $(f0_libs)
fuzzers += tests/fuzz/fuzz_dns
tests_fuzz_fuzz_dns_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/overlay
tests_fuzz_fuzz_dns_LDADD = $(fuzz_main) liboverlay.a $(f1_libs)
fuzzers += tests/fuzz/fuzz_gossip
tests_fuzz_fuzz_gossip_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/membership/gossip
tests_fuzz_fuzz_gossip_LDADD = $(fuzz_main) libgossip.a $(f1_libs)
fuzzers += tests/fuzz/fuzz_http
tests_fuzz_fuzz_http_LDADD = $(fuzz_main) libnet.a $(f0_libs)
fuzzers += tests/fuzz/fuzz_image
tests_fuzz_fuzz_image_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/image
tests_fuzz_fuzz_image_LDADD = $(fuzz_main) libimage.a $(f1_libs)
fuzzers += tests/fuzz/fuzz_image_peers
tests_fuzz_fuzz_image_peers_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/image
tests_fuzz_fuzz_image_peers_LDADD = $(fuzz_main) libimage.a $(f1_libs)
fuzzers += tests/fuzz/fuzz_layer
tests_fuzz_fuzz_layer_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/image
tests_fuzz_fuzz_layer_LDADD = $(fuzz_main) libimage.a $(f1_libs) $(ARCHIVE_LIBS)
fuzzers += tests/fuzz/fuzz_noise
tests_fuzz_fuzz_noise_LDADD = $(fuzz_main) libnet.a $(f0_libs)
fuzzers += tests/fuzz/fuzz_oci
tests_fuzz_fuzz_oci_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/runtime
tests_fuzz_fuzz_oci_LDADD = $(fuzz_main) libruntime.a $(f1_libs)
fuzzers += tests/fuzz/fuzz_raft
tests_fuzz_fuzz_raft_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/membership/raft
tests_fuzz_fuzz_raft_LDADD = $(fuzz_main) libraft.a $(f1_libs)
fuzzers += tests/fuzz/fuzz_rec
tests_fuzz_fuzz_rec_LDADD = $(fuzz_main) libmodel.a $(f0_libs)
fuzzers += tests/fuzz/fuzz_stack
tests_fuzz_fuzz_stack_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/stack
tests_fuzz_fuzz_stack_LDADD = $(fuzz_main) libstack.a $(f1_libs)
fuzzers += tests/fuzz/fuzz_tunnel
tests_fuzz_fuzz_tunnel_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/overlay
tests_fuzz_fuzz_tunnel_LDADD = $(fuzz_main) liboverlay.a $(f1_libs)
fuzzers += tests/fuzz/fuzz_val
tests_fuzz_fuzz_val_LDADD = $(fuzz_main) $(f0_libs)

check_PROGRAMS += $(unit_tests) $(simulations) $(planted) $(fuzzers)
TESTS += $(unit_tests) $(simulations) $(fuzzers)
dist_check_SCRIPTS = tests/sim/coverage tests/sim/planted tests/sim/run
