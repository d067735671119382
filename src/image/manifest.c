/* Manifests: OCI image manifest and index (image-spec "manifest.md", "image-index.md"), Docker's
 * manifest v2 schema 2 and manifest list. Which of them it is says mediaType, else the
 * registry's content type, else the shape. Everything is bounded here, before anything is asked
 * for or allocated on its account. */
#include "image_internal.h"

#define OCI_INDEX "application/vnd.oci.image.index.v1+json"
#define OCI_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define DOCKER_LIST "application/vnd.docker.distribution.manifest.list.v2+json"
#define DOCKER_MANIFEST "application/vnd.docker.distribution.manifest.v2+json"
#define DOCKER_SCHEMA1 "application/vnd.docker.distribution.manifest.v1"
enum { INDEX_MAX = 1024 };

void image_desc_clear(struct image_desc *d)
{
    free(d->media_type);
    free(d->digest);
    free(d->ref_name);
    free(d->architecture);
    free(d->os);
    free(d->variant);
    *d = (struct image_desc){ 0 };
}

void image_desc_copy(struct image_desc *dst, const struct image_desc *src)
{
    *dst = (struct image_desc){
        .media_type = xstrdup(src->media_type),
        .digest = xstrdup(src->digest),
        .ref_name = xstrdup(src->ref_name),
        .architecture = xstrdup(src->architecture),
        .os = xstrdup(src->os),
        .variant = xstrdup(src->variant),
        .size = src->size,
    };
}

void image_manifest_clear(struct image_manifest *m)
{
    for (uint32_t i = 0; i < m->n; i++)
        image_desc_clear(&m->v[i]);
    free(m->v);
    free(m->raw);
    free(m->media_type);
    image_desc_clear(&m->config);
    *m = (struct image_manifest){ 0 };
}

static int desc_from(struct image_desc *ret, const struct val *v, const char *where, int64_t max,
                     struct err *e)
{
    const char *digest = val_get_str(v, "digest");
    const struct val *size = val_get(v, "size");
    if (!v || v->kind != V_MAP || !digest || !image_digest_ok(digest))
        return err_set(e, E_INVALID, "%s: want a descriptor with a sha256 digest", where);
    if (!size || size->kind != V_INT || size->i < 0 || size->i > max)
        return err_set(e, E_INVALID, "%s: size is missing or not within 0..%lld", where,
                       (long long)max);
    ret->digest = xstrdup(digest);
    ret->size = size->i;
    str_set(&ret->media_type, val_get_str(v, "mediaType"));
    const struct val *p = val_get(v, "platform");
    str_set(&ret->architecture, val_get_str(p, "architecture"));
    str_set(&ret->os, val_get_str(p, "os"));
    str_set(&ret->variant, val_get_str(p, "variant"));
    const struct val *notes = val_get(v, "annotations");
    const char *name = val_get_str(notes, "io.containerd.image.name");
    str_set(&ret->ref_name, name ? name : val_get_str(notes, "org.opencontainers.image.ref.name"));
    return 0;
}

static int list_from(struct image_manifest *m, const struct val *v, const char *name, uint32_t max,
                     int64_t size_max, struct err *e)
{
    if (!v || v->kind != V_LIST || v->n > max)
        return err_set(e, E_INVALID, "%s: want a list of at most %u descriptors", name, max);
    m->v = xcalloc(v->n ? v->n : 1, sizeof *m->v);
    for (uint32_t i = 0; i < v->n; i++) {
        AUTO_FREE char *where = xasprintf("%s[%u]", name, i);
        m->n = i + 1;
        int r = desc_from(&m->v[i], v->list[i], where, size_max, e);
        if (r < 0)
            return r;
    }
    return 0;
}

static int manifest_from(struct image_manifest *m, const struct val *root, const char *media_type,
                         struct err *e)
{
    const char *own = val_get_str(root, "mediaType");
    const char *type = own ? own : media_type;
    if (root->kind != V_MAP)
        return err_set(e, E_INVALID, "want an object");
    if (val_get_int(root, "schemaVersion", 0) != 2 || (type && str_starts(type, DOCKER_SCHEMA1)))
        return err_set(e, E_UNSUPPORTED,
                       "schemaVersion is not 2; push the image again with a client of this decade");
    bool known = type && (str_equal(type, OCI_INDEX) || str_equal(type, DOCKER_LIST) ||
                          str_equal(type, OCI_MANIFEST) || str_equal(type, DOCKER_MANIFEST));
    if (own && !known)
        return err_set(e, E_UNSUPPORTED, "media type \"%.200s\" is no image", own);
    m->is_index = known ? str_equal(type, OCI_INDEX) || str_equal(type, DOCKER_LIST)
                        : val_get(root, "manifests") != NULL;
    /* One document must not read as two things. */
    if (val_get(root, "manifests") && (val_get(root, "layers") || val_get(root, "config")))
        return err_set(e, E_INVALID, "both manifests and layers are given");
    m->media_type = xstrdup(known ? type : m->is_index ? OCI_INDEX : OCI_MANIFEST);
    if (m->is_index)
        return list_from(m, val_get(root, "manifests"), "manifests", INDEX_MAX, IMAGE_MANIFEST_MAX,
                         e);
    int r = desc_from(&m->config, val_get(root, "config"), "config", IMAGE_CONFIG_MAX, e);
    if (r < 0)
        return r;
    return list_from(m, val_get(root, "layers"), "layers", IMAGE_LAYERS_MAX, IMAGE_LAYER_MAX, e);
}

int image_manifest_parse(struct image_manifest *ret, const char *json, size_t size,
                         const char *media_type, struct err *e)
{
    struct val_doc *d = NULL;
    *ret = (struct image_manifest){ 0 };
    if (size > IMAGE_MANIFEST_MAX)
        return err_set(e, E_TOO_BIG, "the manifest has %zu bytes, at most %d are read", size,
                       IMAGE_MANIFEST_MAX);
    int r = json_parse(&d, json, size, "manifest", e);
    if (r < 0)
        return r;
    r = manifest_from(ret, val_root(d), media_type, e);
    val_doc_free(d);
    if (r < 0) {
        image_manifest_clear(ret);
        return err_wrap(e, "manifest");
    }
    ret->raw = xstrndup(json, size);
    ret->raw_size = size;
    return 0;
}

const struct image_desc *image_manifest_choose(const struct image_manifest *m)
{
    const struct image_desc *any = NULL;
    for (uint32_t i = 0; i < m->n; i++) {
        const struct image_desc *d = &m->v[i];
        if (m->n == 1 && !d->os && !d->architecture)
            return d; /* nothing said and nothing else there: the configuration will tell */
        if (!str_equal(d->os, "linux") || !str_equal(d->architecture, image_arch()))
            continue;
        if (str_equal(d->variant, image_variant()))
            return d;
        if (!any)
            any = d;
    }
    return any;
}
