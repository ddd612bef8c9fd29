# BuildPackage prepares, "builds" and installs, and writes each definition to a file.
scripts = preinst prerm postrm conffiles description

define BuildPackage
$(eval $(Package/$(1)))
all: $(1)
$(1):
	$(Build/Prepare)
	$(Build/Compile)
	$(call Package/$(1)/install,$(OUT)/root)
	$(foreach s,$(scripts),$(file >$(OUT)/$(s),$(call Package/$(1)/$(s))))
	$(file >$(OUT)/fields,$(call fields))
endef

define fields
NAME $(PKG_NAME)
VERSION $(PKG_VERSION)-r$(PKG_RELEASE)
MAINTAINER $(PKG_MAINTAINER)
LICENSE $(PKG_LICENSE)
FLAGS $(PKG_BUILD_FLAGS)
TITLE $(TITLE)
SECTION $(SECTION)
DEPENDS $(DEPENDS)
CONFLICTS $(CONFLICTS)
USERID $(USERID)
GO_PKG_BUILD_PKG $(GO_PKG_BUILD_PKG)
GO_PKG_LDFLAGS_X $(GO_PKG_LDFLAGS_X)
MISSING $(filter-out $(wildcard $(PKG_FILE_DEPENDS)),$(PKG_FILE_DEPENDS))
endef
