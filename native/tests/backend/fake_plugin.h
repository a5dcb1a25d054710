/* A plugin in C that computes nothing: its memory is the host's, and it records its calls. */
#ifndef LK_FAKE_PLUGIN_H
#define LK_FAKE_PLUGIN_H

#include "backend/plugin.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fake_plugin_record {
    /* Handles and buffers that the engine has not given back. */
    int n_devices;
    int n_backends;
    int n_passes;
    int n_buffers;
    int most_passes; /* at a time */
    /* The next call of this function fails: its name in lk_plugin; null: none. */
    const char* failing;
    lk_status status;
    /* What the last calls got. */
    int batch_invariant;
    int checked_head_size;
    char text[512];
    lk_plugin_stage stage;
    lk_plugin_attention attention;
} fake_plugin_record;

extern fake_plugin_record fake_record;
extern const lk_plugin fake_plugin;

#ifdef __cplusplus
}
#endif

#endif
