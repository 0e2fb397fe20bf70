// SPDX-License-Identifier: GPL-2.0
/*
 * Linux's side of the key-value store in ../store.ts. In the device's folder, /sys/bus/virtio/devices/virtioN:
 *
 *   echo name=value >set     sets a value; fails with "Invalid argument" and the like
 *   echo name >get           asks for one; fails with "No such file or directory" when there is none
 *   cat get                  the value that was asked for last
 *   cat entries              how many there are
 *   echo 1 >watch            has changes reported, in the kernel's log
 */
#include <linux/completion.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>

#define VIRTIO_ID_STORE 22 /* For a "pstore" device, which nobody has specified. */
#define EVENTS 8

struct store_config {
	__le32 entries;
	__le32 watch;
};

enum { STORE_GET, STORE_SET };
enum { STORE_OK, STORE_NOT_FOUND, STORE_INVALID, STORE_FAILED };

struct store_request {
	__le16 op;
	__le16 key_length;
	char data[1024]; /* The key, then the value. */
};

struct store_answer {
	u8 status;
	char value[1024];
};

struct store {
	struct virtio_device *vdev;
	struct virtqueue *requests, *events;
	struct mutex lock; /* One request at a time. */
	struct completion answered;
	struct store_request request;
	struct store_answer answer;
	size_t value_length;
	char changed[EVENTS][256];
};

static int store_do(struct store *store, u16 op, const char *text, size_t key_length, size_t length)
{
	static const int errors[] = { 0, -ENOENT, -EINVAL, -EIO };
	struct scatterlist out, in, *lists[] = { &out, &in };
	unsigned int used;
	int err;

	if (length > sizeof(store->request.data))
		return -E2BIG;
	store->request.op = cpu_to_le16(op);
	store->request.key_length = cpu_to_le16(key_length);
	memcpy(store->request.data, text, length);
	sg_init_one(&out, &store->request, offsetof(struct store_request, data) + length);
	sg_init_one(&in, &store->answer, sizeof(store->answer));
	err = virtqueue_add_sgs(store->requests, lists, 1, 1, store, GFP_KERNEL);
	if (err)
		return err;
	virtqueue_kick(store->requests);
	while (!virtqueue_get_buf(store->requests, &used))
		wait_for_completion(&store->answered);
	if (used < 1 || used > sizeof(store->answer))
		return -EIO;
	store->value_length = used - 1;
	return errors[min_t(u8, store->answer.status, STORE_FAILED)];
}

static void store_answered(struct virtqueue *vq)
{
	struct store *store = vq->vdev->priv;

	complete(&store->answered);
}

static int store_listen(struct store *store, char *key)
{
	struct scatterlist in;

	sg_init_one(&in, key, sizeof(store->changed[0]));
	return virtqueue_add_inbuf(store->events, &in, 1, key, GFP_ATOMIC);
}

static void store_changed(struct virtqueue *vq)
{
	struct store *store = vq->vdev->priv;
	unsigned int length;
	char *key;

	while ((key = virtqueue_get_buf(vq, &length))) {
		length = min_t(unsigned int, length, sizeof(store->changed[0]));
		dev_info(&vq->vdev->dev, "%.*s has changed\n", length, key);
		store_listen(store, key);
	}
	virtqueue_kick(vq);
}

static void store_config_changed(struct virtio_device *vdev)
{
	u32 entries;

	virtio_cread_le(vdev, struct store_config, entries, &entries);
	dev_info(&vdev->dev, "%u entries\n", entries);
}

static ssize_t set_store(struct device *dev, struct device_attribute *attr, const char *text, size_t count)
{
	struct store *store = dev_to_virtio(dev)->priv;
	const char *equals = memchr(text, '=', count);
	size_t key_length = equals ? equals - text : 0, length = count;
	char *data;
	int err;

	if (!equals)
		return -EINVAL;
	if (text[length - 1] == '\n')
		length--;
	data = kmemdup(text, length, GFP_KERNEL);
	if (!data)
		return -ENOMEM;
	memmove(data + key_length, data + key_length + 1, length - key_length - 1);
	mutex_lock(&store->lock);
	err = store_do(store, STORE_SET, data, key_length, length - 1);
	mutex_unlock(&store->lock);
	kfree(data);
	return err ?: count;
}
static DEVICE_ATTR_WO(set);

static ssize_t get_store(struct device *dev, struct device_attribute *attr, const char *text, size_t count)
{
	struct store *store = dev_to_virtio(dev)->priv;
	size_t length = count && text[count - 1] == '\n' ? count - 1 : count;
	int err;

	mutex_lock(&store->lock);
	err = store_do(store, STORE_GET, text, length, length);
	if (err)
		store->value_length = 0;
	mutex_unlock(&store->lock);
	return err ?: count;
}

static ssize_t get_show(struct device *dev, struct device_attribute *attr, char *text)
{
	struct store *store = dev_to_virtio(dev)->priv;
	ssize_t length;

	mutex_lock(&store->lock);
	length = sysfs_emit(text, "%.*s\n", (int)store->value_length, store->answer.value);
	mutex_unlock(&store->lock);
	return length;
}
static DEVICE_ATTR_RW(get);

static ssize_t entries_show(struct device *dev, struct device_attribute *attr, char *text)
{
	u32 entries;

	virtio_cread_le(dev_to_virtio(dev), struct store_config, entries, &entries);
	return sysfs_emit(text, "%u\n", entries);
}
static DEVICE_ATTR_RO(entries);

static ssize_t watch_store(struct device *dev, struct device_attribute *attr, const char *text, size_t count)
{
	u32 watch;
	int err = kstrtou32(text, 0, &watch);

	if (err)
		return err;
	virtio_cwrite_le(dev_to_virtio(dev), struct store_config, watch, &watch);
	return count;
}
static DEVICE_ATTR_WO(watch);

static struct attribute *store_attrs[] = {
	&dev_attr_set.attr, &dev_attr_get.attr, &dev_attr_entries.attr, &dev_attr_watch.attr, NULL,
};
ATTRIBUTE_GROUPS(store);

static int store_probe(struct virtio_device *vdev)
{
	struct virtqueue_info info[] = { { "requests", store_answered }, { "events", store_changed } };
	struct virtqueue *queues[2];
	struct store *store = kzalloc(sizeof(*store), GFP_KERNEL);
	int err, i;

	if (!store)
		return -ENOMEM;
	store->vdev = vdev;
	mutex_init(&store->lock);
	init_completion(&store->answered);
	vdev->priv = store;
	err = virtio_find_vqs(vdev, 2, queues, info, NULL);
	if (err) {
		kfree(store);
		return err;
	}
	store->requests = queues[0];
	store->events = queues[1];
	for (i = 0; i < EVENTS; i++)
		store_listen(store, store->changed[i]);
	virtio_device_ready(vdev);
	virtqueue_kick(store->events);
	return 0;
}

static void store_remove(struct virtio_device *vdev)
{
	virtio_reset_device(vdev);
	vdev->config->del_vqs(vdev);
	kfree(vdev->priv);
}

static const struct virtio_device_id store_ids[] = { { VIRTIO_ID_STORE, VIRTIO_DEV_ANY_ID }, { 0 } };
MODULE_DEVICE_TABLE(virtio, store_ids);

static struct virtio_driver store_driver = {
	.driver.name = "virtio_store",
	.driver.dev_groups = store_groups,
	.id_table = store_ids,
	.probe = store_probe,
	.remove = store_remove,
	.config_changed = store_config_changed,
};
module_virtio_driver(store_driver);

MODULE_DESCRIPTION("A key-value store");
MODULE_LICENSE("GPL");
