/*
 * A plugin of QEMU's user mode: how many instructions a thread has executed.
 *
 * The thread asks with a system call that no kernel has, number 7777; each one appends its count
 * to the file of `-plugin qemu_count.so,marks=FILE`. Blocks are counted as they are entered, all
 * of their instructions at once: exact unless a fault leaves one in the middle.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <qemu-plugin.h>

#define MARK 7777

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

static qemu_plugin_u64 executed;
static FILE *marks;

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(
        block, QEMU_PLUGIN_INLINE_ADD_U64, executed, qemu_plugin_tb_n_insns(block));
}

static void on_call(qemu_plugin_id_t id, unsigned int thread, int64_t number, uint64_t a1,
                    uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7,
                    uint64_t a8)
{
    (void)id, (void)a1, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number == MARK) {
        fprintf(marks, "%" PRIu64 "\n", qemu_plugin_u64_get(executed, thread));
        fflush(marks);
    }
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    (void)info;
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "marks=", strlen("marks=")) == 0) {
            marks = fopen(argv[i] + strlen("marks="), "w");
        }
    }
    if (marks == NULL) {
        fprintf(stderr, "qemu_count: name a file that can be written: marks=FILE\n");
        return -1;
    }
    executed = qemu_plugin_scoreboard_u64(qemu_plugin_scoreboard_new(sizeof(uint64_t)));
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_vcpu_syscall_cb(id, on_call);
    return 0;
}
