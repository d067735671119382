/* What an image consists of, for saving and pushing it: its own manifest as long as the blobs that names are the ones
 * kept, so that the digest stays the same; else an OCI manifest over the kept ones, the same for the same blobs. */
#include "image_internal.h"

#define OCI "application/vnd.oci.image."

static bool is_whole(const struct image_manifest *m, const struct image_kept *kept, uint32_t n)
{
    if (m->is_index || m->n != n)
        return false;
    for (uint32_t i = 0; i < n; i++)
        if (!str_equal(m->v[i].digest, kept[i].digest) || m->v[i].size != kept[i].size)
            return false;
    return true;
}

static struct val *desc_val(struct val_doc *d, const char *type, const char *digest, int64_t size)
{
    struct val *v = val_map(d);
    val_set(d, v, "mediaType", val_str(d, type));
    val_set(d, v, "digest", val_str(d, digest));
    val_set(d, v, "size", val_int(d, size));
    return v;
}

static int make_manifest(const char *id, int64_t config_size, const struct image_kept *kept, uint32_t n,
                         struct image_manifest *ret, struct err *e)
{
    struct val_doc *d = val_doc_new();
    struct val *root = val_map(d), *layers = val_list(d);
    AUTO_SB struct sb b;
    for (uint32_t i = 0; i < n; i++) {
        bool plain = str_equal(kept[i].packing, "tar");
        AUTO_FREE char *type =
            xasprintf(OCI "layer.v1.tar%s%s", plain ? "" : "+", plain ? "" : kept[i].packing);
        val_push(d, layers, desc_val(d, type, kept[i].digest, kept[i].size));
    }
    val_set(d, root, "schemaVersion", val_int(d, 2));
    val_set(d, root, "mediaType", val_str(d, OCI "manifest.v1+json"));
    val_set(d, root, "config", desc_val(d, OCI "config.v1+json", id, config_size));
    val_set(d, root, "layers", layers);
    sb_init(&b, IMAGE_MANIFEST_MAX);
    json_write(&b, root, 0);
    val_doc_free(d);
    return image_manifest_parse(ret, b.s, b.len, NULL, e);
}

int image_parts(const char *root, const char *id, const char *manifest, const struct strs *diff_ids,
                struct image_manifest *ret, struct err *e)
{
    struct image_kept kept[IMAGE_LAYERS_MAX];
    AUTO_FREE char *json = NULL;
    size_t size;
    *ret = (struct image_manifest){ 0 };
    for (uint32_t i = 0; i < diff_ids->n; i++)
        if (!image_kept_find(root, diff_ids->v[i], &kept[i]))
            return err_set(e, E_NOT_FOUND,
                           "the packed form of layer %s of image %.19s is not here (an older shoal did not keep it); "
                           "pull or load the image again",
                           diff_ids->v[i], id);
    if (manifest && image_blob_read(root, manifest, IMAGE_MANIFEST_MAX, &json, &size, NULL) == 0 &&
        image_manifest_parse(ret, json, size, NULL, NULL) == 0) {
        if (is_whole(ret, kept, diff_ids->n))
            return 0;
        image_manifest_clear(ret);
    }
    free(TAKE(json));
    int r = image_blob_read(root, id, IMAGE_CONFIG_MAX, &json, &size, e);
    return r < 0 ? r : make_manifest(id, (int64_t)size, kept, diff_ids->n, ret, e);
}
