"""Images with masks: PASCAL VOC's layout, generated scenes, and how training crops them."""
