# The part that golang-package.mk has: a program in GO_PKG_INSTALL_BIN_PATH.
GO_ARCH_DEPENDS := @(aarch64||mips)

define Build/Compile
	test -f $(PKG_BUILD_DIR)/go.mod
	test -f $(PKG_BUILD_DIR)/$(patsubst $(GO_PKG)/%,%,$(GO_PKG_BUILD_PKG))/main.go
	echo a program >$(PKG_BUILD_DIR)/$(notdir $(GO_PKG_BUILD_PKG))
endef

define GoPackage/Package/Install/Bin
	install -d -m0755 $(1)$(GO_PKG_INSTALL_BIN_PATH)
	install -m0755 $(PKG_BUILD_DIR)/$(notdir $(GO_PKG_BUILD_PKG)) $(1)$(GO_PKG_INSTALL_BIN_PATH)/
endef

GoBinPackage =
