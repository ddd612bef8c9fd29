# A stand-in for OpenWrt's build system: what openwrt/upnpd/Makefile uses of it, with
# the modes and the meaning that it has there. OUT receives what is defined and
# what is installed.
INCLUDE_DIR := $(TOPDIR)/include
BUILD_DIR := $(OUT)/build
PKG_BUILD_DIR = $(BUILD_DIR)/$(PKG_NAME)-$(PKG_VERSION)
CP := cp -fpR
LN := ln -sf
INSTALL_DIR := install -d -m0755
INSTALL_BIN := install -m0755
INSTALL_DATA := install -m0644
INSTALL_CONF := install -m0600
